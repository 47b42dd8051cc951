"""Workers share the shards of a projection, take over from each other, and release what exceeds their share."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest

from projector.app import worker as worker_module
from projector.app.notifications import Notification, Released, Retrying, StandingBy
from projector.app.observers import Observer
from projector.app.worker import Worker
from projector.domain.shards import Muster, Shard
from projector.errors import DatabaseUnavailableError, FatalError, ShardsChangedError
from tests.support.memory.turns import until
from tests.support.patience import PATIENCE_S


class Projection:
    """The leaders of the shards, and the workers that are there."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.leaders: dict[int, Leader] = {}
        self.ended: list[int] = []
        """The shards whose leaders have ended, in order."""
        self.workers: set[Roster] = set()
        self.down = False
        self.catching_up = [asyncio.Event() for _ in range(shards)]
        for event in self.catching_up:
            event.set()

    def led_by(self, worker: "Running") -> list[int]:
        return sorted(number for number, leader in self.leaders.items() if leader.worker is worker)


class Roster:
    """The port `Roster`."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection

    async def open(self) -> None:
        await asyncio.sleep(0)
        self._projection.workers.add(self)

    async def leave(self) -> None:
        self._projection.workers.discard(self)

    async def look(self) -> Muster:
        await asyncio.sleep(0)
        projection = self._projection
        if projection.down:
            raise DatabaseUnavailableError("down")
        free = tuple(number for number in range(projection.shards) if number not in projection.leaders)
        return Muster(len(projection.workers), free)


class Leader:
    """What keeps the endpoints of a shard."""

    def __init__(self, worker: "Running", shard: Shard, observer: Observer) -> None:
        self.worker = worker
        self._shard = shard
        self._observer = observer
        self._stop = asyncio.Event()
        self.error: Exception | None = None

    async def run(self) -> None:
        leaders = self.worker.projection.leaders
        while leaders.get(self._shard.number) not in (None, self):
            self._observer.notify(StandingBy())
            if self._stop.is_set():
                return
            await asyncio.sleep(0)
        leaders[self._shard.number] = self
        try:
            caught_up = self.worker.projection.catching_up[self._shard.number]
            await (caught_up if self.worker.until_caught_up else self._stop).wait()
            if self.error is not None:
                raise self.error
        finally:
            del leaders[self._shard.number]
            self.worker.projection.ended.append(self._shard.number)

    def stop(self) -> None:
        self._stop.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._stop.set()


class Running(Observer):
    """A worker, and what it has notified."""

    def __init__(self, projection: Projection, *, until_caught_up: bool = False, last: int | None = None) -> None:
        self.projection = projection
        self.until_caught_up = until_caught_up
        self.heard: Counter[type[Notification]] = Counter()
        self.worker = Worker(
            Roster(projection),
            lambda shard, observer: Leader(self, shard, observer),
            self,
            shards=projection.shards,
            until_caught_up=until_caught_up,
            last=last,
        )
        self.task = asyncio.create_task(self.worker.run())

    def notify(self, notification: Notification) -> None:
        self.heard[type(notification)] += 1

    @property
    def led(self) -> list[int]:
        return self.projection.led_by(self)

    async def stop(self) -> None:
        self.worker.stop()
        await self.task

    async def die(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


Start = Callable[..., Running]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(worker_module, "_LOOK_EVERY_S", 0)
    monkeypatch.setattr(worker_module, "_LOOK_AGAIN_S", 0)
    monkeypatch.setattr(worker_module, "growing_pauses_s", lambda **_: (0 for _ in count()))
    started: list[Running] = []

    def start(projection: Projection, *, until_caught_up: bool = False, last: int | None = None) -> Running:
        started.append(Running(projection, until_caught_up=until_caught_up, last=last))
        return started[-1]

    yield start
    for worker in started:
        await worker.die()


def shares(*workers: Running) -> list[int]:
    return sorted(len(worker.led) for worker in workers)


async def test_one_worker_leads_every_shard(start: Start) -> None:
    worker = start(Projection(5))
    await until(lambda: worker.led == [0, 1, 2, 3, 4])
    await worker.stop()
    assert worker.projection.leaders == {}


@pytest.mark.parametrize(("shards", "workers", "expected"), [(3, 2, [1, 2]), (8, 4, [2] * 4), (2, 4, [0, 0, 1, 1])])
async def test_workers_lead_equal_shares(start: Start, shards: int, workers: int, expected: list[int]) -> None:
    projection = Projection(shards)
    started = [start(projection) for _ in range(workers)]
    await until(lambda: shares(*started) == expected)


async def test_the_shards_of_a_worker_that_dies_are_taken_over(start: Start) -> None:
    projection = Projection(3)
    first, second = start(projection), start(projection)
    await until(lambda: shares(first, second) == [1, 2])
    await first.die()
    await until(lambda: second.led == [0, 1, 2])


async def test_a_worker_that_comes_later_gets_its_share(start: Start) -> None:
    projection = Projection(4)
    first = start(projection)
    await until(lambda: len(first.led) == 4)
    second = start(projection)
    await until(lambda: shares(first, second) == [2, 2])
    assert first.heard[Released] == 2


async def test_a_worker_without_a_shard_stands_by(start: Start) -> None:
    projection = Projection(1)
    first = start(projection)
    await until(lambda: first.led == [0])
    second = start(projection)
    await until(lambda: second.heard[StandingBy] == 1)
    await first.stop()
    await until(lambda: second.led == [0])


async def test_a_worker_that_cannot_look_keeps_what_it_leads(start: Start) -> None:
    projection = Projection(2)
    worker = start(projection)
    await until(lambda: worker.led == [0, 1])
    idle = start(projection)
    await until(lambda: shares(worker, idle) == [1, 1])
    spare = start(projection)
    await until(lambda: spare.heard[StandingBy] == 1)
    projection.down = True
    await until(lambda: spare.heard[Retrying] > 3)
    assert shares(worker, idle) == [1, 1]
    assert worker.heard[Retrying] == 0
    projection.down = False
    await until(lambda: spare.heard[StandingBy] == 2)


async def test_an_error_of_a_shard_ends_a_worker_that_cannot_look(start: Start) -> None:
    projection = Projection(2)
    worker = start(projection)
    await until(lambda: worker.led == [0, 1])
    projection.down = True
    projection.leaders[1].fail(FatalError("wrong"))
    with pytest.raises(FatalError):
        await asyncio.wait_for(worker.task, PATIENCE_S)


async def test_workers_end_when_every_shard_was_at_the_end_of_the_stream(start: Start) -> None:
    projection = Projection(5)
    started = [start(projection, until_caught_up=True) for _ in range(2)]
    await asyncio.gather(*(worker.task for worker in started))


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_shard_with_more_to_do_is_led_once_every_other_was_caught_up(start: Start, workers: int) -> None:
    for _ in range(20):  # the order is random
        projection = Projection(4)
        started = [start(projection, until_caught_up=True, last=0) for _ in range(workers)]
        await asyncio.gather(*(worker.task for worker in started))
        assert projection.ended[-1] == 0
        assert set(projection.ended) == {0, 1, 2, 3}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("apart", [False, True])
async def test_a_shard_that_was_led_before_the_others_were_caught_up_has_more_to_do(
    start: Start, order: tuple[int, int], *, apart: bool
) -> None:
    """Another shard may have committed something after the last look at its work."""
    projection = Projection(2)
    for event in projection.catching_up:
        event.clear()
    worker = start(projection, until_caught_up=True, last=0)
    await until(lambda: worker.led == [0, 1])
    for number in order:
        projection.catching_up[number].set()
        if apart:
            await until(lambda: len(worker.led) < 2)
    await worker.task
    assert projection.ended[-1] == 0
    assert sorted(projection.ended) == [0, 0, 1]


@pytest.mark.parametrize("error", [FatalError("wrong"), ShardsChangedError(expected=3, found=2)])
async def test_an_error_of_one_shard_releases_the_others(start: Start, error: Exception) -> None:
    projection = Projection(3)
    worker = start(projection)
    await until(lambda: len(worker.led) == 3)
    projection.leaders[1].fail(error)
    with pytest.raises(type(error)):
        await worker.task
    assert projection.leaders == {}
