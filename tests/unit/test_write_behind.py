from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

import pytest

from projector.app.projection import Projection
from projector.app.write_behind import WriteBehindCache
from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import Message
from projector.errors import HeldRowsRefusedError
from tests.support.memory.database import MemoryDatabase
from tests.support.memory.life import MALFORMED, life
from tests.support.memory.scene import RULES, MemoryScene
from tests.support.memory.staging import MemoryStaging
from tests.support.memory.tables import StoredDeadLetter

START = Checkpoint(stream="S", stream_created_at=0, rules=RULES)
UNLIMITED = 1_000_000


class CountingStaging(MemoryStaging):
    """Staging tables that count their transactions."""

    transactions = 0

    def transaction(self) -> Any:
        self.transactions += 1
        return super().transaction()


class Replayed(NamedTuple):
    """The staging tables after a replay."""

    rows: dict[str, tuple[Any, ...]]
    dead_letters: dict[tuple[str, int], StoredDeadLetter]
    transactions: int


async def replay(
    scene: MemoryScene, messages: Sequence[Message], *, most_registers: int | None, batch_size: int
) -> Replayed:
    """Fold messages into staging tables, through a cache unless its size is None."""
    database = MemoryDatabase()
    staging = CountingStaging(database)
    await staging.open()
    cache = None if most_registers is None else WriteBehindCache(staging, most_registers=most_registers)
    rows = cache or staging
    projection = Projection(scene.codec, rows, START)
    previous = None
    for start in range(0, len(messages), batch_size):
        batch = await projection.decode(messages[start : start + batch_size])
        previous = await projection.fold_ahead(batch, rows, previous)
        await projection.process(previous.batch, previous)
    if cache is not None:
        await cache.flush()
    stored = database.staging.endpoints
    facts = {name: (*row.states, row.last_event_seq, row.last_event_at) for name, row in stored.items()}
    return Replayed(facts, dict(database.staging.dead_letters), staging.transactions)


@pytest.mark.parametrize("most_registers", [0, 1, 10, 40, 150])
@pytest.mark.parametrize("batch_size", [1, 7, 40])
async def test_a_cache_that_is_flushed_whenever_it_is_full_loses_nothing(
    scene: MemoryScene, most_registers: int, batch_size: int
) -> None:
    random = Random(11)  # noqa: S311 - it makes messages, the same ones each time
    await scene.stream.publish(*life(scene.event, random, 400, endpoints=12))
    messages = scene.stream.after(0)
    expected = await replay(scene, messages, most_registers=UNLIMITED, batch_size=batch_size)
    found = await replay(scene, messages, most_registers=most_registers, batch_size=batch_size)
    directly = await replay(scene, messages, most_registers=None, batch_size=batch_size)
    assert found[:2] == expected[:2] == directly[:2]
    assert (len(expected.rows), len(expected.dead_letters) > 5) == (12, True)
    assert (expected.transactions, found.transactions > 2) == (2, True)


async def test_nothing_is_written_before_the_cache_is_full(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 9), MALFORMED)
    staging = CountingStaging(scene.database)
    await staging.open()
    cache = WriteBehindCache(staging, most_registers=UNLIMITED)
    projection = Projection(scene.codec, cache, START)
    await projection.process(await projection.decode(scene.stream.after(0)))
    assert (staging.transactions, scene.database.staging.endpoints) == (0, {})
    await cache.flush()
    assert sorted(scene.database.staging.endpoints) == [f"e{n}" for n in range(1, 10)]
    assert list(scene.database.staging.dead_letters) == [("S", 10)]


async def test_dead_letters_alone_fill_the_cache(scene: MemoryScene) -> None:
    await scene.stream.publish(*[MALFORMED] * 30)
    found = await replay(scene, scene.stream.after(0), most_registers=100, batch_size=3)
    assert sorted(position for _, position in found.dead_letters) == list(range(1, 31))
    assert {stored.attempts for stored in found.dead_letters.values()} == {1}
    assert found.transactions > 3


async def test_facets_that_are_needed_later_are_loaded_and_the_ones_that_were_folded_are_kept(
    scene: MemoryScene,
) -> None:
    staging = MemoryStaging(scene.database)
    await staging.open()
    connect, announce = (
        scene.event("connectivity.connected", "e"),
        scene.event("config.new-available", "e", configId="c"),
    )
    await scene.stream.publish(connect, announce, announce, connect)
    cache = WriteBehindCache(staging, most_registers=UNLIMITED)
    projection = Projection(scene.codec, cache, START)
    for message in scene.stream.after(0):
        await projection.process(await projection.decode([message]))
        if message.position == 2:
            await cache.flush()
    await cache.flush()
    row = scene.database.staging.endpoints["e"]
    assert (row.states[0].connected.position, row.states[4].available.stamp.position) == (4, 3)
    assert row.last_event_seq == 4


async def test_rejected_rows_are_not_blamed_on_the_current_messages(scene: MemoryScene) -> None:
    await scene.database.refuse("e2")
    staging = MemoryStaging(scene.database)
    await staging.open()
    await scene.stream.publish(*scene.connects(1, 3))
    cache = WriteBehindCache(staging, most_registers=UNLIMITED)
    projection = Projection(scene.codec, cache, START)
    outcome = await projection.process(await projection.decode(scene.stream.after(0)))
    assert (outcome.dead_letters, outcome.refolded) == ([], False)
    with pytest.raises(HeldRowsRefusedError, match="database-rejected"):
        await cache.flush()
