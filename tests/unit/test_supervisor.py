import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count

import pytest

from projector.app import supervisor as supervisor_module
from projector.app.notifications import Committed, Notification
from projector.app.observers import Observer, Observers
from projector.app.publish import Publishing
from projector.domain.checkpoint import Anchor
from projector.errors import (
    BrokerLoginError,
    CheckpointMovedError,
    DatabaseLoginError,
    DatabaseRefusedError,
    EventsLostError,
    FatalError,
    LoginRefusedAgainError,
    StreamMissingError,
)
from tests.support.memory.connections import Connection
from tests.support.memory.database import CommitFault
from tests.support.memory.feed import MemoryFeed
from tests.support.memory.scene import MemoryScene
from tests.support.memory.turns import until
from tests.support.scene import Recorder

Fault = Callable[[MemoryScene], Awaitable[None]]


async def lose_the_broker(scene: MemoryScene) -> None:
    await scene.stream.lose_connections()


async def interrupt_delivery(scene: MemoryScene) -> None:
    await scene.stream.interrupt()


async def lose_the_database(scene: MemoryScene) -> None:
    await scene.database.lose_connections()


async def roll_the_next_commit_back(scene: MemoryScene) -> None:
    scene.database.commit_faults.append(CommitFault.ROLLED_BACK)


async def lose_the_answer_to_the_next_commit(scene: MemoryScene) -> None:
    scene.database.commit_faults.append(CommitFault.UNKNOWN)


FAULTS = [
    lose_the_broker,
    interrupt_delivery,
    lose_the_database,
    roll_the_next_commit_back,
    lose_the_answer_to_the_next_commit,
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_transient_error_starts_a_new_session_and_nothing_is_lost_or_folded_twice(
    scene: MemoryScene, fault: Fault
) -> None:
    scene.batch_size = 2
    await scene.stream.publish(*scene.connects(1, 5))
    daemon = scene.follow()
    await daemon.hears("caught up at 5")
    await fault(scene)
    await scene.stream.publish(*scene.connects(6, 10))
    await daemon.hears("caught up at 10")
    recorder = await daemon.stop()
    assert (len(recorder.errors), recorder.heard["active"]) == (1, 2)
    assert await scene.database.endpoints() == {f"e{n}": n for n in sorted(range(1, 11), key=str)}
    assert (scene.position, await scene.stream.acknowledged()) == (10, 10)


async def test_new_session_folds_only_uncommitted_messages_again(scene: MemoryScene) -> None:
    scene.batch_size = 1
    await scene.stream.publish(*scene.connects(1, 3))
    scene.database.commit_faults.extend([None, CommitFault.ROLLED_BACK])
    recorder = await scene.fold()
    assert recorder.heard["active from 0"] == recorder.heard["active from 1"] == 1
    assert recorder.heard["committed"] == 3


async def test_pauses_grow_while_nothing_is_committed(scene: MemoryScene, pauses: list[int]) -> None:
    await scene.stream.publish(*scene.connects(1, 1))
    scene.database.commit_faults.extend([CommitFault.ROLLED_BACK] * 4)
    await scene.fold()
    assert pauses == [1, 2, 3, 4]


async def test_pauses_start_over_after_a_commit(scene: MemoryScene, pauses: list[int]) -> None:
    scene.batch_size = 1
    await scene.stream.publish(*scene.connects(1, 3))
    fails = CommitFault.ROLLED_BACK
    scene.database.commit_faults.extend([fails, fails, None, fails, fails, fails])
    await scene.fold()
    # A failure after a commit is followed by a separate pause.
    assert pauses == [1, 2, 1, 2]


@pytest.mark.parametrize("server", ["stream", "database"])
async def test_daemon_waits_for_a_server_that_is_down_at_the_start(
    scene: MemoryScene, pauses: list[int], server: str
) -> None:
    connections = scene.stream.connections if server == "stream" else scene.database.connections
    connections.reachable = False
    daemon = scene.follow()
    await daemon.hears("retrying", 3)
    connections.reachable = True
    await daemon.hears("caught up at 0")
    await daemon.stop()
    assert pauses == list(range(1, len(pauses) + 1))


async def test_pauses_grow_for_a_server_that_goes_down_after_a_commit(scene: MemoryScene, pauses: list[int]) -> None:
    await scene.stream.publish(*scene.connects(1, 1))
    daemon = scene.follow()
    await daemon.hears("caught up at 1")
    scene.stream.connections.reachable = False
    await scene.stream.lose_connections()
    await daemon.hears("retrying", 5)
    scene.stream.connections.reachable = True
    await daemon.hears("caught up at 1", 2)
    await daemon.stop()
    assert pauses[:4] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("server", "refusal"),
    [("stream", BrokerLoginError("wrong password")), ("database", DatabaseLoginError("wrong password"))],
)
async def test_refused_login_is_fatal_at_first_and_retried_once_it_was_accepted(
    scene: MemoryScene, server: str, refusal: FatalError
) -> None:
    connections = scene.stream.connections if server == "stream" else scene.database.connections
    connections.refusal = refusal
    with pytest.raises(type(refusal)):
        await scene.follow().end()
    connections.refusal = None
    daemon = scene.follow()
    await daemon.hears("caught up at 0")
    connections.refusal = refusal
    connections.lose()
    await daemon.hears("retrying", 3)
    connections.refusal = None
    await daemon.hears("caught up at 0", 2)
    recorder = await daemon.stop()
    assert {type(error) for error in recorder.errors[1:]} == {LoginRefusedAgainError}


async def test_idle_daemon_notices_a_server_that_goes_down_and_waits_for_it(scene: MemoryScene) -> None:
    daemon = scene.follow()
    await daemon.hears("caught up at 0")
    scene.database.connections.reachable = False
    await scene.database.lose_connections()
    await daemon.hears("retrying", 3)
    scene.database.connections.reachable = True
    await daemon.hears("caught up at 0", 2)
    await daemon.stop()


async def lose_events(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 2))
    await scene.stream.trim(3)


async def remove_the_stream(scene: MemoryScene) -> None:
    await scene.stream.remove()


async def refuse_everything(scene: MemoryScene) -> None:
    scene.database.takes_dead_letters = False
    await scene.database.refuse("e1")
    await scene.stream.publish(*scene.connects(1, 1))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (lose_events, EventsLostError),
        (remove_the_stream, StreamMissingError),
        (refuse_everything, DatabaseRefusedError),
    ],
)
async def test_a_fatal_error_ends_the_daemon_and_frees_the_lead(
    scene: MemoryScene, fault: Fault, error: type[FatalError], pauses: list[int]
) -> None:
    await fault(scene)
    with pytest.raises(error):
        await scene.follow().end()
    assert pauses == []
    assert scene.database.leader is not None
    assert scene.database.leader.lost.is_set()


async def test_the_end_of_the_stream_ends_the_daemon_and_its_lag_is_written(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 3))
    recorder = await scene.fold()
    assert recorder.heard["caught up at 3"] == 1
    assert scene.database.lag == 0


async def test_the_standby_takes_over_when_the_leader_loses_its_connection(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 2))
    leader = scene.follow()
    await leader.hears("caught up at 2")
    standby = scene.follow()
    await standby.hears("standing by")
    leading = scene.database.leader
    assert leading is not None
    scene.database.connections.disconnect(leading)
    await standby.hears("active from 2")
    await leader.hears("standing by")
    await scene.stream.publish(*scene.connects(3, 4))
    await standby.hears("caught up at 4")
    assert (await leader.stop()).heard["caught up at 4"] == 0
    await standby.stop()
    assert await scene.database.endpoints() == {f"e{n}": n for n in range(1, 5)}


async def test_the_standby_takes_over_when_the_leader_stops(scene: MemoryScene) -> None:
    leader = scene.follow()
    await leader.hears("active")
    standby = scene.follow()
    await standby.hears("standing by")
    await leader.stop()
    await standby.hears("active")
    await standby.stop()


async def test_commit_in_progress_is_rolled_back_when_the_lead_is_lost(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 2))
    daemon = scene.follow()
    await daemon.hears("caught up at 2")
    async with scene.database.lock:
        await scene.stream.publish(*scene.connects(3, 4))
        await until(lambda: scene.database.lock._waiters)
        await scene.database.lose_connections()
    await daemon.hears("caught up at 4")
    recorder = await daemon.stop()
    assert (len(recorder.errors), recorder.heard["active from 2"]) == (1, 1)
    assert await scene.database.endpoints() == {f"e{n}": n for n in range(1, 5)}


async def test_paused_daemon_that_was_overtaken_writes_nothing_and_continues_at_the_new_checkpoint(
    scene: MemoryScene,
) -> None:
    await scene.stream.publish(*scene.connects(1, 2))
    daemon = scene.follow()
    await daemon.hears("caught up at 2")
    async with scene.database.lock:
        await scene.stream.publish(*scene.connects(3, 4))
        await until(lambda: scene.database.lock._waiters)
        checkpoint, last = scene.database.checkpoint, scene.stream.message(4)
        assert checkpoint is not None
        assert last is not None
        scene.database.checkpoint = replace(checkpoint, position=4, anchor=Anchor.of(last))
    await daemon.hears("caught up at 4")
    recorder = await daemon.stop()
    assert [type(error) for error in recorder.errors] == [CheckpointMovedError]
    assert recorder.heard["active from 4"] == 1
    assert await scene.database.endpoints() == {"e1": 1, "e2": 2}


async def test_stopping_before_the_start_opens_nothing(scene: MemoryScene) -> None:
    recorder = await scene.follow().stop()
    assert (recorder.heard, scene.database.leader) == ({}, None)


async def test_stopping_while_idle_returns_at_once(scene: MemoryScene) -> None:
    daemon = scene.follow()
    await daemon.hears("caught up at 0")
    recorder = await daemon.stop()
    assert recorder.errors == []


async def test_stopping_while_standing_by_returns_at_once(scene: MemoryScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_STANDBY_POLL_S", 3600)
    leader = scene.follow()
    await leader.hears("active")
    standby = scene.follow()
    await standby.hears("standing by")
    await standby.stop()
    await leader.stop()


async def test_stopping_during_a_pause_returns_at_once(scene: MemoryScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_PAUSE_AFTER_PROGRESS_S", 3600)
    scene.batch_size = 1
    await scene.stream.publish(*scene.connects(1, 2))
    scene.database.commit_faults.extend([None, CommitFault.ROLLED_BACK])
    daemon = scene.follow()
    await daemon.hears("retrying")
    await daemon.stop()
    assert scene.position == 1


async def test_stopping_during_a_commit_finishes_it(scene: MemoryScene) -> None:
    scene.batch_size = 2
    await scene.stream.publish(*scene.connects(1, 6))
    daemon = scene.follow()
    async with scene.database.lock:
        await until(lambda: scene.database.lock._waiters)
        stopping = asyncio.create_task(daemon.stop())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not stopping.done()
    recorder = await stopping
    assert (recorder.errors, recorder.heard["committed"]) == ([], 1)
    assert (scene.position, await scene.stream.acknowledged()) == (2, 2)
    assert await scene.database.endpoints() == {"e1": 1, "e2": 2}


@pytest.mark.parametrize("fault", [CommitFault.ROLLED_BACK, CommitFault.UNKNOWN])
async def test_stopping_during_a_failing_commit_returns_without_a_retry(scene: MemoryScene, fault: CommitFault) -> None:
    await scene.stream.publish(*scene.connects(1, 2))
    scene.database.commit_faults.append(fault)
    daemon = scene.follow()
    async with scene.database.lock:
        await until(lambda: scene.database.lock._waiters)
        stopping = asyncio.create_task(daemon.stop())
        await asyncio.sleep(0)
    recorder = await stopping
    assert (recorder.errors, recorder.heard["active"]) == ([], 1)
    assert scene.position == (0 if fault is CommitFault.ROLLED_BACK else 2)
    assert (await scene.fold()).heard["caught up at 2"] == 1
    assert await scene.database.endpoints() == {"e1": 1, "e2": 2}


class Faulty(Observer):
    """Raises on one kind of notification."""

    def __init__(self, kind: type[Notification]) -> None:
        self._kind = kind

    def notify(self, notification: Notification) -> None:
        if isinstance(notification, self._kind):
            raise ZeroDivisionError


async def test_what_an_observer_raises_ends_the_run_and_no_commit_is_lost_or_repeated(scene: MemoryScene) -> None:
    scene.batch_size = 1
    await scene.stream.publish(*scene.connects(1, 3))
    with pytest.raises(ZeroDivisionError):
        await scene.supervisor(Faulty(Committed)).run()
    committed = scene.position
    assert committed >= 1
    assert scene.database.leader is not None
    assert scene.database.leader.lost.is_set()
    recorder = await scene.fold()
    assert recorder.heard[f"active from {committed}"] == 1
    assert await scene.database.endpoints() == {"e1": 1, "e2": 2, "e3": 3}


async def test_cancelling_the_run_ends_the_session_and_closes_the_store(scene: MemoryScene) -> None:
    supervisor = scene.supervisor(Observers(()))
    running = asyncio.create_task(supervisor.run())
    await until(lambda: scene.database.leader is not None)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert scene.database.leader is not None
    assert scene.database.leader.lost.is_set()


async def test_the_end_is_that_of_the_stream_if_the_consumer_is_behind(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 3))
    scene.stream.replicated = 2
    daemon = scene.follow(until_caught_up=True)
    await until(lambda: scene.position == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    scene.stream.replicated = 3
    await daemon.end()
    assert scene.position == 3


async def test_loss_of_the_lead_while_the_last_changes_are_published_starts_a_new_session(
    scene: MemoryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, published, attempts = MemoryFeed(), Recorder(), count(1)
    connect = feed.broker.connect

    async def never_the_first_time() -> Connection:
        if next(attempts) == 1:
            await asyncio.Event().wait()
        return await connect()

    monkeypatch.setattr(feed.broker, "connect", never_the_first_time)
    scene.publishing = publishing = Publishing(feed, published)
    await scene.stream.publish(*scene.connects(1, 2))
    daemon = scene.follow(until_caught_up=True)
    await until(lambda: publishing._finishing)
    await scene.database.lose_connections()
    await scene.stream.publish(*scene.connects(3, 4))
    recorder = await daemon.end()
    assert (len(recorder.errors), recorder.heard["active"], recorder.heard["caught up at 4"]) == (1, 2, 1)
    assert (published.failures, next(attempts)) == ([], 3)


async def test_heartbeats_continue_while_a_query_runs(scene: MemoryScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_HEARTBEAT_S", 0)
    await scene.stream.publish(*scene.connects(1, 1))
    daemon = scene.follow()
    async with scene.database.lock:
        await until(lambda: scene.database.lock._waiters)
        before = daemon.recorder.heard["heartbeat"]
        await daemon.hears("heartbeat", before + 3)
    await daemon.hears("caught up at 1")
    await daemon.stop()
