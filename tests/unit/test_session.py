import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from projector.app.dead_letters import retry
from projector.app.notifications import Active, CaughtUp, Committed, Notification, Received, StreamRecognized
from projector.app.observers import Observer
from projector.app.session import Session
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.messages import Selection
from projector.errors import (
    CheckpointMovedError,
    DatabaseUnavailableError,
    DeliveryInterruptedError,
    EventsLostError,
    FatalError,
    OtherStreamError,
    RulesChangedError,
    StreamMissingError,
    StreamReplacedError,
)
from projector.stream import subjects
from tests.support.memory.database import CommitFault
from tests.support.memory.retry import MemoryRetryStore
from tests.support.memory.scene import RULES, MemoryScene, live_options
from tests.support.memory.store import MemoryStore
from tests.support.memory.turns import until
from tests.support.patience import PATIENCE_S

MALFORMED = (subjects.build("kpc", "connectivity.connected"), b"\xff")


class Notes(Observer):
    """The notifications that an observer received, without heartbeats."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.caught_up = asyncio.Event()

    def notify(self, notification: Notification) -> None:
        match notification:
            case Active(checkpoint=checkpoint):
                self.notes.append(f"active from {checkpoint.position}")
            case Received(messages=messages):
                self.notes.append(f"received {messages[0].position} to {messages[-1].position}")
            case Committed(checkpoint=checkpoint, pending=pending):
                self.notes.append(f"committed {checkpoint.position}, {pending} follow")
            case StreamRecognized(checkpoint=checkpoint, created_before=before):
                self.notes.append(f"created at {checkpoint.stream_created_at} instead of {before}")
            case CaughtUp(checkpoint=checkpoint):
                self.notes.append(f"caught up at {checkpoint.position}")
                self.caught_up.set()


@asynccontextmanager
async def opened(scene: MemoryScene, observer: Observer, **options: Any) -> AsyncIterator[Session]:
    """A session with its stream and database."""
    store = MemoryStore(scene.database)
    await store.open()
    assert await store.lead()
    async with scene.stream.open(batch_size=scene.batch_size) as source, asyncio.timeout(PATIENCE_S):
        yield Session(scene.codec, source, store, observer, live_options(**options))
    await store.close()


async def hold(scene: MemoryScene, **options: Any) -> list[str]:
    """Run a session to the end of the stream; return its notifications."""
    told = Notes()
    async with opened(scene, told, until_caught_up=True, **options) as session:
        await session.run()
    return told.notes


@asynccontextmanager
async def following(scene: MemoryScene, **options: Any) -> AsyncIterator[tuple[asyncio.Task[None], Notes]]:
    """A session that has caught up and continues."""
    told = Notes()
    async with opened(scene, told, **options) as session:
        running = asyncio.create_task(session.run())
        await told.caught_up.wait()
        told.caught_up.clear()
        yield running, told
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def refused(scene: MemoryScene, error: type[FatalError], **options: Any) -> FatalError:
    """Return why a session ends before it changes anything."""
    before = await everything(scene)
    with pytest.raises(error) as caught:
        await hold(scene, **options)
    assert await everything(scene) == before
    return caught.value


async def everything(scene: MemoryScene) -> tuple[object, ...]:
    return await scene.database.endpoints(), await scene.database.dead_letters(), scene.database.checkpoint


def move(scene: MemoryScene, **changes: Any) -> None:
    """Change the checkpoint behind the session's back."""
    assert scene.database.checkpoint is not None
    scene.database.checkpoint = replace(scene.database.checkpoint, **changes)


@pytest.fixture
async def folded(scene: MemoryScene) -> MemoryScene:
    """A scene in which five messages are folded."""
    await scene.stream.publish(*scene.connects(1, 5))
    await hold(scene)
    return scene


async def test_the_first_session_begins_a_checkpoint_and_folds_everything(scene: MemoryScene) -> None:
    scene.batch_size = 2
    await scene.stream.publish(*scene.connects(1, 3))
    assert await hold(scene) == [
        "active from 0",
        "received 1 to 2",
        "received 3 to 3",
        "committed 2, 1 follow",
        "committed 3, 0 follow",
        "caught up at 3",
    ]
    assert await scene.database.endpoints() == {"e1": 1, "e2": 2, "e3": 3}
    state, last = scene.stream.state(), scene.stream.message(3)
    assert last is not None
    assert scene.database.checkpoint == Checkpoint(
        stream="S", stream_created_at=state.created_at, rules=RULES, position=3, anchor=Anchor.of(last)
    )
    assert (scene.database.lag, await scene.stream.acknowledged()) == (3, 3)


async def test_the_next_session_continues_at_the_checkpoint(folded: MemoryScene) -> None:
    await folded.stream.publish(*folded.connects(6, 7))
    assert await hold(folded) == ["active from 5", "received 6 to 7", "committed 7, 0 follow", "caught up at 7"]
    assert await hold(folded) == ["active from 7", "caught up at 7"]


async def test_empty_stream_is_caught_up_at_once(scene: MemoryScene) -> None:
    assert await hold(scene) == ["active from 0", "caught up at 0"]


async def test_session_reports_once_that_it_has_caught_up(scene: MemoryScene) -> None:
    async with following(scene) as (_, told):
        for _ in range(5):
            await asyncio.sleep(0)
        await scene.stream.publish(*scene.connects(1, 2))
        await told.caught_up.wait()
        assert told.notes == [
            "active from 0",
            "caught up at 0",
            "received 1 to 2",
            "committed 2, 0 follow",
            "caught up at 2",
        ]


async def test_lag_counts_every_uncommitted_message(scene: MemoryScene) -> None:
    scene.batch_size = 2
    await scene.stream.publish(*scene.connects(1, 9))
    async with opened(scene, Notes()) as session:
        async with scene.database.lock:
            running = asyncio.create_task(session.run())
            await until(lambda: session.committing)
            assert session._lag == scene.database.lag == 9
        await until(lambda: scene.position == 9)
        await until(lambda: session._lag == 0)
        running.cancel()


async def test_batches_grow_while_the_lag_is_large_and_shrink_as_it_does(scene: MemoryScene) -> None:
    scene.batch_size = 2
    await scene.stream.publish(*scene.connects(1, 1) * 200)
    notes = await hold(scene, batch_size=2, largest_batch=16)
    sizes = [last - first + 1 for first, last in _received(notes)]
    assert sizes[0] == 2
    assert max(sizes) == 16
    assert sizes == [*sorted(sizes[: sizes.index(16)]), *sorted(sizes[sizes.index(16) :], reverse=True)]
    assert sizes[-1] == 2
    assert sum(sizes) == 200
    assert (scene.position, await scene.stream.acknowledged()) == (200, 200)
    assert await scene.database.endpoints() == {"e1": 200}


async def test_batches_that_name_each_endpoint_once_do_not_grow(scene: MemoryScene) -> None:
    scene.batch_size = 2
    await scene.stream.publish(*scene.connects(1, 200))
    notes = await hold(scene, batch_size=2, largest_batch=16)
    assert {last - first + 1 for first, last in _received(notes)} == {2}


async def test_a_message_that_the_database_rejects_makes_batches_small_again(scene: MemoryScene) -> None:
    scene.batch_size = 2
    await scene.stream.publish(*scene.connects(1, 1) * 149, *scene.connects(150, 150), *scene.connects(1, 1) * 250)
    scene.database.refused = {"e150"}
    sizes = {first: last - first + 1 for first, last in _received(await hold(scene, batch_size=2, largest_batch=16))}
    assert max(size for first, size in sizes.items() if first < 150) == 16
    read_ahead = [16, 16]
    assert [size for first, size in sizes.items() if first > 150][:6] == [*read_ahead, 2, 4, 8, 16]
    assert await scene.database.dead_letters() == [(150, "parked", 1)]


async def test_a_new_session_begins_with_small_batches(scene: MemoryScene) -> None:
    scene.batch_size = 2
    await scene.stream.publish(*scene.connects(1, 1) * 200)
    told = Notes()
    async with opened(scene, told, batch_size=2, largest_batch=16) as session:
        running = asyncio.create_task(session.run())
        await until(lambda: scene.position >= 50)
        running.cancel()
    assert max(last - first + 1 for first, last in _received(told.notes)) == 16
    first, last = _received(await hold(scene, batch_size=2, largest_batch=16))[0]
    assert last - first + 1 == 2


def _received(notes: list[str]) -> list[tuple[int, int]]:
    """The first and last position of each batch."""
    words = [note.split() for note in notes if note.startswith("received")]
    return [(int(first), int(last)) for _, first, _, last in words]


async def test_a_missing_stream_ends_the_session(folded: MemoryScene) -> None:
    await folded.stream.remove()
    await refused(folded, StreamMissingError)


async def test_a_recreated_stream_is_not_the_one_that_was_folded(folded: MemoryScene) -> None:
    await folded.stream.recreate()
    await folded.stream.publish(*folded.connects(1, 9))
    assert "created at another time" in str(await refused(folded, StreamReplacedError, accept_gap=True))


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        ({"position": 6}, "ends at position 5"),
        ({"anchor": Anchor(stored_at=1, payload_hash=b"")}, "another message"),
        ({"position": 4}, "another message"),
        ({"position": 0}, "no message can be"),
    ],
    ids=["lost tail", "other message", "other position", "message at no position"],
)
async def test_a_stream_that_does_not_continue_what_was_folded_is_refused(
    folded: MemoryScene, change: dict[str, Any], evidence: str
) -> None:
    move(folded, **change)
    assert evidence in str(await refused(folded, StreamReplacedError, accept_gap=True))


async def test_stream_with_another_creation_time_is_identified_by_the_message_at_the_checkpoint(
    folded: MemoryScene,
) -> None:
    before = folded.stream.state().created_at
    await folded.stream.restart_after_an_edit()
    await folded.stream.publish(*folded.connects(6, 6))
    now = folded.stream.state().created_at
    assert await hold(folded) == [
        f"created at {now} instead of {before}",
        "active from 5",
        "received 6 to 6",
        "committed 6, 0 follow",
        "caught up at 6",
    ]
    assert folded.database.checkpoint is not None
    assert folded.database.checkpoint.stream_created_at == now > before


async def test_a_message_at_the_checkpoint_that_left_the_stream_proves_nothing(folded: MemoryScene) -> None:
    await folded.stream.publish(*folded.connects(6, 6))
    await folded.stream.trim(6)
    assert (await hold(folded))[-1] == "caught up at 6"


@pytest.mark.parametrize(
    "change",
    [
        {"stream": "OTHER"},
        {"rules": replace(RULES, version=0)},
        {"rules": replace(RULES, revision="kaa-2031-01")},
        {"rules": replace(RULES, originators=("kpc",))},
    ],
    ids=["stream", "version", "revision", "originators"],
)
async def test_rows_of_another_stream_or_other_rules_are_refused(folded: MemoryScene, change: dict[str, Any]) -> None:
    move(folded, **change)
    await folded.stream.publish(*folded.connects(6, 6))
    await refused(folded, OtherStreamError if "stream" in change else RulesChangedError)


async def test_a_checkpoint_that_another_process_moved_ends_the_session_before_any_write(folded: MemoryScene) -> None:
    async with following(folded) as (running, _):
        move(folded, position=9)
        await folded.stream.publish(*folded.connects(6, 6))
        with pytest.raises(CheckpointMovedError):
            await running
    assert "e6" not in await folded.database.endpoints()


async def test_session_continues_on_rows_that_a_retry_changed(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 1), MALFORMED)
    async with following(scene) as (running, told):
        assert await scene.database.dead_letters() == [(2, "parked", 1)]
        store = MemoryRetryStore(scene.database, "S")
        await store.open()
        message = await store.message(2)
        repaired = message._replace(payload=scene.event("connectivity.connected", "e2")[1])
        key = "S", 2
        stored = scene.database.live.dead_letters[key]
        scene.database.live.dead_letters[key] = replace(stored, letter=stored.letter._replace(message=repaired))
        assert [
            retried.parked_again async for retried in retry(scene.codec, store, Selection(), stream="S", rules=RULES)
        ] == [None]
        await scene.stream.publish(*scene.connects(3, 3))
        await told.caught_up.wait()
        assert not running.done()
    assert await scene.database.endpoints() == {"e1": 1, "e2": 2, "e3": 3}
    assert scene.database.checkpoint is not None
    assert (scene.position, scene.database.checkpoint.generation) == (3, 1)


async def test_a_gap_at_the_start_is_fatal_and_counted(folded: MemoryScene) -> None:
    await folded.stream.publish(*folded.connects(6, 9))
    await folded.stream.trim(8)
    lost = await refused(folded, EventsLostError)
    assert isinstance(lost, EventsLostError)
    assert (lost.checkpoint, lost.first, lost.lost) == (5, 8, 2)


async def test_an_accepted_gap_at_the_start_moves_the_checkpoint(folded: MemoryScene) -> None:
    await folded.stream.publish(*folded.connects(6, 9))
    await folded.stream.trim(8)
    assert await hold(folded, accept_gap=True) == [
        "active from 7",
        "received 8 to 9",
        "committed 9, 0 follow",
        "caught up at 9",
    ]


async def test_an_accepted_gap_at_the_end_of_the_stream_leaves_a_checkpoint_without_a_message(
    folded: MemoryScene,
) -> None:
    await folded.stream.publish(*folded.connects(6, 9))
    await folded.stream.trim(10)
    assert await hold(folded, accept_gap=True) == ["active from 9", "caught up at 9"]
    assert folded.database.checkpoint is not None
    assert folded.database.checkpoint.anchor is None
    assert await hold(folded) == ["active from 9", "caught up at 9"]


async def lose_the_middle(scene: MemoryScene) -> None:
    """Remove messages that a session waits for."""
    await scene.stream.publish(*scene.connects(6, 9))
    await scene.stream.trim(8)


async def test_gap_is_fatal_before_any_later_message_is_folded(folded: MemoryScene) -> None:
    async with following(folded) as (running, _):
        await lose_the_middle(folded)
        with pytest.raises(EventsLostError):
            await running
    assert (folded.position, await folded.stream.acknowledged()) == (5, 5)


async def test_an_accepted_gap_while_following_moves_the_checkpoint_and_is_not_acknowledged(
    folded: MemoryScene,
) -> None:
    async with following(folded, accept_gap=True) as (_, told):
        await lose_the_middle(folded)
        await told.caught_up.wait()
        assert told.notes[2:] == ["received 8 to 9", "committed 9, 0 follow", "caught up at 9"]
    assert (folded.position, await folded.stream.acknowledged()) == (9, 9)
    assert sorted(await folded.database.endpoints()) == ["e1", "e2", "e3", "e4", "e5", "e8", "e9"]


async def test_messages_before_a_fatal_gap_are_committed(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 2))
    async with opened(scene, Notes()) as session:
        async with scene.database.lock:
            running = asyncio.create_task(session.run())
            await until(lambda: session.committing)
            await scene.stream.publish(*scene.connects(3, 6))
            await scene.stream.trim(5)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not running.done()
        with pytest.raises(EventsLostError) as lost:
            await running
    assert (lost.value.checkpoint, lost.value.first) == (2, 5)
    assert (scene.position, await scene.stream.acknowledged()) == (2, 2)


async def test_failed_commit_acknowledges_nothing(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 3))
    scene.database.commit_faults.append(CommitFault.ROLLED_BACK)
    with pytest.raises(DatabaseUnavailableError):
        await hold(scene)
    assert (scene.position, await scene.stream.acknowledged()) == (0, 0)


async def test_a_commit_whose_answer_is_lost_acknowledges_nothing_and_is_not_repeated(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 3))
    scene.database.commit_faults.append(CommitFault.UNKNOWN)
    with pytest.raises(DatabaseUnavailableError):
        await hold(scene)
    assert (scene.position, await scene.stream.acknowledged()) == (3, 0)
    assert await hold(scene) == ["active from 3", "caught up at 3"]


async def test_an_interruption_ends_the_session(folded: MemoryScene) -> None:
    async with following(folded) as (running, _):
        await folded.stream.interrupt()
        with pytest.raises(DeliveryInterruptedError):
            await running


async def test_a_session_that_is_stopped_ends_after_the_batch_being_committed(scene: MemoryScene) -> None:
    scene.batch_size = 1
    await scene.stream.publish(*scene.connects(1, 5))
    told = Notes()
    async with opened(scene, told) as session:
        async with scene.database.lock:
            running = asyncio.create_task(session.run())
            await until(lambda: session.committing)
            session.stop()
        await running
        assert session.progressed
    assert (scene.position, await scene.stream.acknowledged()) == (1, 1)
