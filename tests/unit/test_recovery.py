"""Random schedules of faults, takeovers, rebuilds and retries: afterwards the table is what the stream implies."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from projector.app.dead_letters import retry
from projector.app.rebuild import Rebuild, RebuildOptions, Report
from projector.domain.endpoint import Endpoint, fold
from projector.domain.messages import Message, Selection, Skipped
from projector.errors import PoisonError, TransientError
from projector.stream.codec import Codec
from tests.support.memory.database import CommitFault
from tests.support.memory.life import life
from tests.support.memory.retry import MemoryRetryStore
from tests.support.memory.scene import RULES, MemoryScene
from tests.support.memory.staging import MemoryStaging
from tests.support.patience import PATIENCE_S

SCHEDULES = 20
STEPS = 40
ENDPOINTS = 5


@dataclass
class Schedule:
    """The faults of one stream and one database, determined by a seed."""

    scene: MemoryScene
    random: Random
    jobs: list[asyncio.Task[None]] = field(default_factory=list)
    published: list[Message] = field(default_factory=list)
    verifications: list[Report] = field(default_factory=list)

    async def run(self, *actions: Callable[[], Awaitable[None]]) -> None:
        for _ in range(STEPS):
            await self.random.choice(actions)()
            for _ in range(self.random.randrange(25)):
                await asyncio.sleep(0)

    async def publish(self) -> None:
        wires = life(self.scene.event, self.random, self.random.randrange(1, 4), endpoints=ENDPOINTS)
        last = self.scene.stream.state().last
        await self.scene.stream.publish(*wires)
        self.published += self.scene.stream.after(last)

    async def trim(self) -> None:
        """Remove some folded messages."""
        await self.scene.stream.trim(self.random.randrange(self.scene.position + 2))

    async def lose_the_broker(self) -> None:
        await self.scene.stream.lose_connections()

    async def interrupt_delivery(self) -> None:
        await self.scene.stream.interrupt()

    async def lose_the_database(self) -> None:
        await self.scene.database.lose_connections()

    async def fail_a_commit(self) -> None:
        self.scene.database.commit_faults += [None] * self.random.randrange(3)
        self.scene.database.commit_faults.append(self.random.choice(list(CommitFault)))

    async def restart_a_daemon(self) -> None:
        if len(self.scene.daemons) > 1:
            daemon = self.scene.daemons.pop(self.random.randrange(2))
            await daemon.stop()
        self.scene.follow()

    async def rebuild(self) -> None:
        self._start(self._rebuild())

    async def verify(self) -> None:
        self._start(self._rebuild(apply=False))

    async def retry(self) -> None:
        self._start(self._retry())

    async def refuse_an_endpoint(self) -> None:
        await self.scene.database.refuse(f"e{self.random.randrange(ENDPOINTS)}")

    async def refuse_nothing(self) -> None:
        self.scene.database.refused.clear()

    async def settle(self) -> None:
        """Let every running job end, without further faults."""
        self.scene.database.commit_faults.clear()
        self.scene.database.refused.clear()
        await asyncio.gather(*self.jobs)
        for daemon in self.scene.daemons:
            await daemon.stop()
        await self.scene.fold()

    async def _rebuild(self, *, apply: bool = True) -> None:
        staging = MemoryStaging(self.scene.database)
        await staging.open()
        options = RebuildOptions(rules=RULES, stream="S", apply=apply)
        open_source = self.scene.stream.open
        rebuild = Rebuild(self.scene.codec, open_source, staging, options, lambda *_: None)
        try:
            report = await rebuild.run()
            if not apply:
                self.verifications.append(report)
        finally:
            await staging.close()

    async def _retry(self) -> None:
        store = MemoryRetryStore(self.scene.database, "S")
        await store.open()
        async for _ in retry(self.scene.codec, store, Selection(), stream="S", rules=RULES):
            pass
        await store.close()

    def _start(self, job: Any) -> None:
        """Start a job unless another one runs: a rebuild and a retry exclude each other."""
        if self.jobs and not self.jobs[-1].done():
            job.close()
            return
        self.jobs.append(asyncio.create_task(self._try(job)))

    async def _try(self, job: Awaitable[None]) -> None:
        with suppress(TransientError):
            await job


def implied(codec: Codec, messages: Iterable[Message]) -> tuple[dict[str, tuple[Any, ...]], list[int], int]:
    """Return the rows, the positions of dead letters, and the number of skipped messages that messages imply."""
    endpoints: dict[str, Endpoint] = defaultdict(Endpoint.unseen)
    unreadable, skipped = [], 0
    for message in messages:
        try:
            decoded = codec.decode(message)
        except PoisonError:
            unreadable.append(message.position)
            continue
        if isinstance(decoded, Skipped):
            skipped += 1
        else:
            fold(decoded, endpoints)
    return facts(endpoints), unreadable, skipped


def facts(endpoints: Mapping[str, Endpoint]) -> dict[str, tuple[Any, ...]]:
    return {name: (*one.states, one.last_event_seq, one.last_event_at) for name, one in endpoints.items()}


async def check(schedule: Schedule) -> None:
    scene = schedule.scene
    rows, unreadable, skipped = implied(scene.codec, schedule.published)
    assert facts(scene.database.live.endpoints) == rows
    letters = await scene.database.dead_letters()
    assert [position for position, state, _ in letters if state == "parked"] == unreadable
    checkpoint = scene.database.checkpoint
    assert checkpoint is not None
    assert (checkpoint.position, sum(checkpoint.skipped.values())) == (scene.stream.state().last, skipped)


@pytest.fixture
def begin(scene: MemoryScene) -> Callable[[int], Schedule]:
    def begin(seed: int) -> Schedule:
        schedule = Schedule(scene, Random(seed))  # noqa: S311 - it makes a schedule, the same one each time
        scene.batch_size = schedule.random.randrange(1, 6)
        scene.stream.connections.turns = scene.database.connections.turns = lambda: schedule.random.choice((1, 1, 2, 9))
        return schedule

    return begin


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_table_matches_the_stream_after_any_faults(begin: Callable[[int], Schedule], seed: int) -> None:
    schedule = begin(seed)
    async with asyncio.timeout(PATIENCE_S):
        await schedule.run(
            *[schedule.publish] * 4,
            schedule.lose_the_broker,
            schedule.interrupt_delivery,
            schedule.lose_the_database,
            schedule.fail_a_commit,
            *[schedule.restart_a_daemon] * 2,
            schedule.rebuild,
            schedule.verify,
            schedule.retry,
        )
        await schedule.settle()
    assert [report for report in schedule.verifications if not report.clean] == []
    await check(schedule)


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_retention_of_folded_messages_does_not_change_the_table(
    begin: Callable[[int], Schedule], seed: int
) -> None:
    schedule = begin(seed)
    async with asyncio.timeout(PATIENCE_S):
        await schedule.run(
            *[schedule.publish] * 4,
            *[schedule.trim] * 2,
            schedule.lose_the_broker,
            schedule.interrupt_delivery,
            schedule.lose_the_database,
            schedule.fail_a_commit,
            *[schedule.restart_a_daemon] * 2,
        )
        await schedule.settle()
    await check(schedule)


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_rebuild_repairs_the_table_after_temporarily_rejected_rows(
    begin: Callable[[int], Schedule], seed: int
) -> None:
    schedule = begin(seed)
    async with asyncio.timeout(PATIENCE_S):
        await schedule.run(
            *[schedule.publish] * 4,
            schedule.lose_the_broker,
            schedule.lose_the_database,
            schedule.fail_a_commit,
            *[schedule.restart_a_daemon] * 2,
            *[schedule.refuse_an_endpoint] * 2,
            *[schedule.refuse_nothing] * 2,
            schedule.rebuild,
            *[schedule.retry] * 2,
        )
        await schedule.settle()
        await schedule._rebuild()
        await schedule._rebuild(apply=False)
    assert schedule.verifications[-1].clean
    await check(schedule)
