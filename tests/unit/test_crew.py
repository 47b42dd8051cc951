"""A crew keeps worker processes running, and gives up when that is pointless."""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from time import monotonic

import pytest

from projector.app import crew as crew_module
from projector.app.crew import Crew
from projector.app.notifications import (
    Active,
    Heartbeat,
    Notification,
    Released,
    Retrying,
    StandingBy,
    TooManyWorkers,
    WorkerDied,
)
from projector.app.observers import Observer, Observers
from projector.domain.checkpoint import Checkpoint
from projector.domain.rules import Rules
from projector.domain.shards import Shard
from projector.errors import DatabaseUnavailableError, WorkerFailedError
from tests.support.memory.turns import until

RETRYING = Retrying(error=DatabaseUnavailableError("down"))


class Process:
    """The port `Process`: a worker that does what a test says."""

    def __init__(self, ending: int | None) -> None:
        self._ended = asyncio.Event()
        self._code = ending
        self.killed = False
        self.observer: Observer = Observers(())
        if ending is not None:
            self._ended.set()

    async def run(self, observer: Observer) -> int:
        self.observer = observer
        await self._ended.wait()
        return self._code or 0

    def stop(self) -> None:
        self.end(0)

    def kill(self) -> None:
        self.killed = True
        self.end(-9)

    def end(self, code: int) -> None:
        if not self._ended.is_set():
            self._code = code
            self._ended.set()

    def lead(self, number: int, of: int) -> None:
        rules = Rules(version=1, revision="r", originators=())
        checkpoint = Checkpoint(stream="S", stream_created_at=0, rules=rules, shard=Shard(number, of))
        self.observer.notify(Active(checkpoint=checkpoint))


class Running(Observer):
    """A crew, the processes that it has started, and what it has notified."""

    def __init__(self, workers: int, *, ending: int | None, until_caught_up: bool, silence_s: float) -> None:
        self.processes: list[Process] = []
        self.heard: list[Notification] = []

        def create() -> Process:
            self.processes.append(Process(ending))
            return self.processes[-1]

        self.crew = Crew(
            create, workers, log=lambda _: Observers(()), until_caught_up=until_caught_up, silence_s=silence_s
        )
        self.task = asyncio.create_task(self.crew.run(self))

    def notify(self, notification: Notification) -> None:
        self.heard.append(notification)

    def kinds(self) -> list[type[Notification]]:
        return [type(one) for one in self.heard if not isinstance(one, Heartbeat)]


Start = Callable[..., Running]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(crew_module, "_HEARTBEAT_S", 0)
    monkeypatch.setattr(crew_module, "growing_pauses_s", lambda **_: (0 for _ in count()))
    started: list[Running] = []

    def start(
        workers: int = 2, *, ending: int | None = None, until_caught_up: bool = False, silence_s: float = 60
    ) -> Running:
        started.append(Running(workers, ending=ending, until_caught_up=until_caught_up, silence_s=silence_s))
        return started[-1]

    yield start
    for one in started:
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)


async def test_every_worker_is_stopped_with_the_crew(start: Start) -> None:
    running = start(3)
    await until(lambda: len(running.processes) == 3)
    running.crew.stop()
    await running.task
    assert len(running.processes) == 3


async def test_a_worker_that_dies_is_started_again_and_its_shards_are_free(start: Start) -> None:
    running = start()
    await until(lambda: len(running.processes) == 2)
    running.processes[0].lead(1, of=2)
    running.processes[0].end(-9)
    await until(lambda: len(running.processes) == 3)
    assert Released(shard=Shard(1, 2)) in running.heard
    assert WorkerDied(worker=1, reason="was ended by SIGKILL") in running.heard


async def test_a_silent_worker_is_killed(start: Start) -> None:
    running = start(1, silence_s=0)
    await until(lambda: len(running.processes) == 2)
    assert running.processes[0].killed


async def test_a_pause_of_the_crew_itself_does_not_kill_its_workers(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start(2)
    await until(lambda: len(running.processes) == 2)
    now = monotonic() + 1000
    monkeypatch.setattr(crew_module, "monotonic", lambda: now)
    heartbeats = running.heard.count(Heartbeat())
    await until(lambda: running.heard.count(Heartbeat()) > heartbeats + 3)
    assert not any(process.killed for process in running.processes)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-11, "was ended by SIGSEGV, 5 times in a row"),
        (-200, "was ended by signal 200, 5 times"),
        (0, "ended, 5 times"),
    ],
)
async def test_a_worker_that_dies_at_once_each_time_ends_the_crew(start: Start, code: int, reason: str) -> None:
    running = start(1, ending=code)
    with pytest.raises(WorkerFailedError, match=reason):
        await running.task
    assert len(running.processes) == 5


async def test_a_worker_that_lived_long_did_not_die_at_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_LONG_ENOUGH_S", -1)
    running = start(1, ending=-9)
    await until(lambda: len(running.processes) > 20)


async def test_an_error_of_one_worker_stops_the_others(start: Start) -> None:
    running = start(3)
    await until(lambda: len(running.processes) == 3)
    running.processes[1].end(3)
    with pytest.raises(WorkerFailedError, match="worker 2 ended with exit code 3"):
        await running.task


async def test_a_crew_ends_when_every_worker_was_at_the_end_of_the_stream(start: Start) -> None:
    running = start(3, ending=0, until_caught_up=True)
    await running.task
    assert len(running.processes) == 3


async def test_a_crew_stands_by_only_if_no_worker_leads(start: Start) -> None:
    running = start(2)
    await until(lambda: running.kinds() == [StandingBy])
    running.processes[0].lead(0, of=2)
    running.processes[1].observer.notify(StandingBy())
    for _ in range(10):
        await asyncio.sleep(0)
    assert running.kinds() == [StandingBy, Active]


async def test_a_crew_stands_by_again_after_an_outage(start: Start) -> None:
    running = start(2)
    await until(lambda: running.kinds() == [StandingBy])
    running.processes[0].observer.notify(RETRYING)
    running.processes[0].observer.notify(StandingBy())
    assert running.kinds() == [StandingBy, Retrying, StandingBy]


async def test_a_crew_whose_leader_lost_the_lead_to_another_host_stands_by(start: Start) -> None:
    running = start(2)
    await until(lambda: running.kinds() == [StandingBy])
    running.processes[0].lead(0, of=1)
    running.processes[0].observer.notify(RETRYING)
    running.processes[0].observer.notify(StandingBy())
    assert running.kinds()[-2:] == [Retrying, StandingBy]


@pytest.mark.parametrize("of", [1, 2])
async def test_an_idle_worker_that_retries_does_not_hide_that_another_one_leads(start: Start, of: int) -> None:
    running = start(2)
    await until(lambda: running.kinds() == [StandingBy])
    running.processes[0].lead(0, of=of)
    running.processes[1].observer.notify(RETRYING)
    assert Retrying not in running.kinds()


async def test_too_few_shards_are_named_although_other_hosts_lead_them(start: Start) -> None:
    running = start(3)
    await until(lambda: len(running.processes) == 3)
    running.processes[0].observer.notify(StandingBy(shards=2))
    assert TooManyWorkers(workers=3, shards=2) in running.heard


async def test_too_few_shards_are_named_once(start: Start) -> None:
    running = start(3)
    await until(lambda: len(running.processes) == 3)
    running.processes[0].lead(0, of=2)
    running.processes[1].lead(1, of=2)
    assert running.kinds().count(TooManyWorkers) == 1
    assert TooManyWorkers(workers=3, shards=2) in running.heard
