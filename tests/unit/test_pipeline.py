import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace

import pytest

from projector.app.pipeline import Processed, run_pipeline
from projector.app.projection import Batch, Projection
from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import Endpoint, FacetSet
from projector.errors import BrokerUnavailableError, CheckpointMovedError
from tests.support.fixtures import Wire
from tests.support.memory.database import MemoryDatabase
from tests.support.memory.scene import RULES, MemoryScene
from tests.support.memory.store import MemoryStore
from tests.support.memory.turns import until
from tests.support.patience import PATIENCE_S

START = Checkpoint(stream="S", stream_created_at=0, rules=RULES)


class WatchedStore(MemoryStore):
    """A store that records what was loaded outside its transactions."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.loaded: list[list[str]] = []

    async def load(self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        self.loaded.append(list(needed))
        return await super().load(needed, uncommitted)


class Batches:
    """Batches to process, each published when it is read."""

    def __init__(self, scene: MemoryScene, projection: Projection, *batches: list[Wire]) -> None:
        self._scene = scene
        self._projection = projection
        self._batches = batches
        self.error: Exception | None = None
        """Raised after the last batch."""
        self.read = 0
        self.closed = False

    async def __call__(self) -> AsyncGenerator[Batch, None]:
        try:
            for wires in self._batches:
                last = self._scene.stream.state().last
                await self._scene.stream.publish(*wires)
                self.read += 1
                yield await self._projection.decode(self._scene.stream.after(last))
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


@pytest.fixture
async def store(scene: MemoryScene) -> WatchedStore:
    store = WatchedStore(scene.database)
    await store.open()
    await store.begin(START)
    return store


@pytest.fixture
def projection(scene: MemoryScene, store: WatchedStore) -> Projection:
    return Projection(scene.codec, store, START)


async def run(projection: Projection, store: WatchedStore, batches: Batches) -> list[Processed]:
    async with asyncio.timeout(PATIENCE_S):
        return [processed async for processed in run_pipeline(projection, store, batches())]


async def test_batches_are_committed_in_order_with_their_outcomes(
    scene: MemoryScene, store: WatchedStore, projection: Projection
) -> None:
    batches = Batches(scene, projection, *(scene.connects(n, n + n % 3) for n in range(1, 20)))
    processed = await run(projection, store, batches)
    positions = [one.batch.position for one in processed]
    assert positions == sorted(positions)
    assert [one.outcome.messages for one in processed] == [n % 3 + 1 for n in range(1, 20)]
    assert (scene.position, batches.closed) == (positions[-1], True)


async def test_without_batches_nothing_happens(scene: MemoryScene, store: WatchedStore, projection: Projection) -> None:
    assert await run(projection, store, Batches(scene, projection)) == []
    assert scene.database.checkpoint == START


async def test_each_batch_is_folded_on_the_one_before_it(
    scene: MemoryScene, store: WatchedStore, projection: Projection
) -> None:
    histories = [[scene.event("config.new-available", "e", configId=f"c{n}", timestamp=n)] for n in (1, 3, 2)]
    last = [scene.event("config.updated", "e", configId="c3", timestamp=9)]
    await run(projection, store, Batches(scene, projection, *histories, last))
    configuration = scene.database.live.endpoints["e"].states[4]
    assert (configuration.available.value, configuration.status) == ("c3", "applied")


async def test_while_a_batch_is_committed_the_next_is_folded_and_the_one_after_it_read(
    scene: MemoryScene, store: WatchedStore, projection: Projection
) -> None:
    batches = Batches(scene, projection, *(scene.connects(n, n) for n in range(1, 7)))
    async with scene.database.lock:
        running = asyncio.create_task(run(projection, store, batches))
        await until(lambda: scene.database.lock._waiters)
        for _ in range(50):
            await asyncio.sleep(0)
        assert (store.loaded, batches.read) == ([["e1"], ["e2"]], 3)
    assert len(await running) == 6
    assert store.loaded == [[f"e{n}"] for n in range(1, 7)]


async def test_changed_rows_invalidate_batches_folded_ahead(
    scene: MemoryScene, store: WatchedStore, projection: Projection
) -> None:
    """As if a retry had connected the endpoint after the disconnects of both batches."""
    await run(projection, store, Batches(scene, projection, scene.connects(1, 1)))
    before, checkpoint = scene.database.live.endpoints["e1"], scene.database.checkpoint
    assert checkpoint is not None

    def disconnects(at: int) -> list[Wire]:
        return [scene.event("connectivity.disconnected", endpointIds=["e1"], originatorReplicaId="x", timestamp=at)]

    batches = Batches(scene, projection, disconnects(2_000), disconnects(3_000))
    async with scene.database.lock:
        running = asyncio.create_task(run(projection, store, batches))
        await until(lambda: scene.database.lock._waiters)
        for _ in range(50):
            await asyncio.sleep(0)
        assert store.loaded == [["e1"], ["e1"], ["e1"]]
        connectivity = before.states[0]
        later = connectivity.connected._replace(occurred_at=9_999_999_999_999, originator="retried")
        scene.database.live.endpoints["e1"] = Endpoint(
            [connectivity._replace(connected=later), *before.states[1:]], before.last_event_seq, before.last_event_at
        )
        scene.database.checkpoint = replace(checkpoint, generation=1)
    first, second = await running
    assert (first.outcome.refolded, second.outcome.refolded) == (True, False)
    connectivity = scene.database.live.endpoints["e1"].states[0]
    assert (connectivity.connected, connectivity.disconnected) == (later, None)
    assert (scene.position, projection.checkpoint.generation) == (3, 1)


async def test_parked_message_invalidates_batches_folded_ahead(
    scene: MemoryScene, store: WatchedStore, projection: Projection
) -> None:
    await scene.database.refuse("bad")
    connect = scene.event("connectivity.connected", "e1", timestamp=1_000)
    disconnect_both = scene.event("connectivity.disconnected", endpointIds=["e1", "bad"], timestamp=3_000)
    connect_again = scene.event("connectivity.connected", "e1", timestamp=2_000)
    batches = Batches(scene, projection, [connect, disconnect_both], [connect_again], scene.connects(2, 2))
    processed = await run(projection, store, batches)
    assert [one.outcome.refolded for one in processed] == [True, False, False]
    assert await scene.database.dead_letters() == [(2, "parked", 1)]
    connectivity = scene.database.live.endpoints["e1"].states[0]
    assert (connectivity.connected.position, connectivity.disconnected) == (3, None)
    assert await scene.database.endpoints() == {"e1": 3, "e2": 4}


async def test_batch_error_is_raised_after_earlier_batches_are_committed(
    scene: MemoryScene, store: WatchedStore, projection: Projection
) -> None:
    batches = Batches(scene, projection, *(scene.connects(n, n) for n in range(1, 4)))
    batches.error = BrokerUnavailableError("gone")
    with pytest.raises(BrokerUnavailableError):
        await run(projection, store, batches)
    assert (scene.position, len(await scene.database.endpoints()), batches.closed) == (3, 3, True)


async def test_commit_error_ends_the_pipeline_and_closes_the_batches(
    scene: MemoryScene, store: WatchedStore, projection: Projection
) -> None:
    batches = Batches(scene, projection, *(scene.connects(n, n) for n in range(1, 9)))
    processed = run_pipeline(projection, store, batches())
    await anext(processed)
    scene.database.checkpoint = replace(START, position=99)
    with pytest.raises(CheckpointMovedError):
        await anext(processed)
    assert batches.closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_commit_error_does_not_wait_for_the_next_batch(
    scene: MemoryScene, store: WatchedStore, projection: Projection
) -> None:
    closed = asyncio.Event()

    async def batches() -> AsyncGenerator[Batch, None]:
        try:
            await scene.stream.publish(*scene.connects(1, 1))
            yield await projection.decode(scene.stream.after(0))
            await asyncio.Event().wait()
        finally:
            closed.set()

    scene.database.checkpoint = replace(START, position=99)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(CheckpointMovedError):
            await anext(run_pipeline(projection, store, batches()))
    assert closed.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closed_pipeline_stops_reading_and_committing(
    scene: MemoryScene, store: WatchedStore, projection: Projection
) -> None:
    batches = Batches(scene, projection, *(scene.connects(n, n) for n in range(1, 9)))
    async with aclosing(run_pipeline(projection, store, batches())) as pipeline:
        async for processed in pipeline:
            if processed.batch.position == 2:
                break
    assert (scene.position, batches.closed) == (2, True)
    assert batches.read <= 5
    assert asyncio.all_tasks() == {asyncio.current_task()}
