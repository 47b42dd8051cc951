"""The staging tables in memory, with the ports `Staging` and `FinalTransaction`."""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

from projector.domain.checkpoint import Checkpoint
from projector.domain.differences import DifferenceKind, Differences, RowDifference
from projector.domain.endpoint import Change, Endpoint, FacetSet
from projector.domain.messages import Message
from projector.domain.trimmed import Trimmed
from projector.errors import DatabaseUnavailableError
from projector.storage.columns import FACET_COLUMNS
from tests.support.memory.connections import Connection
from tests.support.memory.database import CheckpointLock, MemoryDatabase, savepoint
from tests.support.memory.tables import Tables, load_over
from tests.support.memory.unit_of_work import MemoryUnitOfWork


class _StagingUnitOfWork(MemoryUnitOfWork):
    """The same operations on the staging tables, which have no checkpoint."""

    def __init__(self, database: MemoryDatabase, connection: Connection, tables: Tables, touched: set[str]) -> None:
        super().__init__(database, connection, tables)
        self._touched = touched

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        await super().save(endpoints)
        self._touched.update(endpoints)

    async def log(self, changes: Sequence[Change], messages: Mapping[int, Message]) -> None:
        """Do nothing."""

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Do nothing."""


class MemoryStaging:
    """The port `Staging`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._connection = Connection(DatabaseUnavailableError)
        self._candidates: set[str] = set()
        """Endpoints that differed at `compare`."""
        self._touched: set[str] = set()
        """Endpoints saved since then."""
        self.shown: list[tuple[int, int]] = []

    async def open(self) -> None:
        self._connection = await self._database.connections.connect()
        self._database.staging.clear()

    async def close(self) -> None:
        self._database.connections.disconnect(self._connection)

    @property
    def connected(self) -> bool:
        return not self._connection.lost.is_set()

    async def lead(self) -> bool:
        await self._connection.turn()
        return self._database.lead(self._connection)

    async def checkpoints(self) -> list[Checkpoint]:
        await self._connection.turn()
        return [] if self._database.checkpoint is None else [self._database.checkpoint]

    async def parked(self, stream: str) -> set[tuple[int, int]]:
        await self._connection.turn()
        return {
            (position, known.stored_at)
            for (name, position), known in self._database.live.dead_letters.items()
            if name == stream and known.state == "parked"
        }

    async def seed(self, trimmed: Trimmed) -> None:
        await self._connection.turn()
        for endpoint_id, row in self._database.live.endpoints.items():
            seed = row.kept(trimmed)
            if seed is not None:
                self._database.staging.save(endpoint_id, seed)

    async def clear(self) -> None:
        await self._connection.turn()
        self._database.staging.clear()

    async def show(self, position: int, target: int) -> None:
        await self._connection.turn()
        self.shown.append((position, target))

    async def compare(self) -> None:
        await self._connection.turn()
        live, staging = self._database.live, self._database.staging
        self._touched.clear()
        self._candidates = {
            endpoint_id
            for endpoint_id in live.endpoints.keys() | staging.endpoints.keys()
            if _columns(live, endpoint_id) != _columns(staging, endpoint_id)
        }

    def transaction(self) -> AbstractAsyncContextManager[MemoryUnitOfWork]:
        work = _StagingUnitOfWork(self._database, self._connection, self._database.staging, self._touched)
        return self._database.transaction(self._connection, work)

    async def load(self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        await self._connection.turn()
        return load_over(self._database.staging, needed, uncommitted)

    @asynccontextmanager
    async def finish(self) -> AsyncIterator["MemoryFinalTransaction"]:
        final = MemoryFinalTransaction(self._database, self._connection, self._candidates, self._touched)
        async with self._database.transaction(self._connection, final):
            yield final


class MemoryFinalTransaction:
    """The port `FinalTransaction`."""

    def __init__(
        self, database: MemoryDatabase, connection: Connection, candidates: set[str], touched: set[str]
    ) -> None:
        self._database = database
        self._connection = connection
        self._candidates = candidates
        self._touched = touched
        self._lock = CheckpointLock(database, connection)
        self._staging = database.staging.draft()
        self._live = Tables(dict(database.live.endpoints), dict(database.live.dead_letters))
        self._kinds: dict[str, DifferenceKind] = {}
        self._after: Checkpoint | None = None

    @property
    def savepoints(self) -> "MemoryFinalTransaction":
        return self

    def transaction(self) -> AbstractAsyncContextManager[MemoryUnitOfWork]:
        """Begin a savepoint on the staging tables."""
        return savepoint(_StagingUnitOfWork(self._database, self._connection, self._staging, self._touched))

    async def hold(self) -> list[Checkpoint]:
        await self._lock.take()
        self._live = Tables(dict(self._database.live.endpoints), dict(self._database.live.dead_letters))
        return [] if self._database.checkpoint is None else [self._database.checkpoint]

    async def differences(self, *, show: int, endpoint_id: str | None) -> Differences:
        await self._connection.turn()
        found: dict[str, RowDifference] = {}
        for one in sorted(self._candidates | self._touched):
            difference = _difference(one, _columns(self._live, one), _columns(self._staging, one))
            if difference is not None:
                found[one] = difference
        self._kinds = {one: difference.kind for one, difference in found.items()}
        kinds = Counter(self._kinds.values())
        columns = Counter(
            name for difference in found.values() if difference.kind == "different" for name in difference.columns
        )
        return Differences(
            compared=len(self._staging.endpoints) + kinds["extra"],
            missing=kinds["missing"],
            extra=kinds["extra"],
            different=kinds["different"],
            by_column=dict(sorted(columns.items(), key=lambda item: (-item[1], item[0]))),
            shown=[difference for one, difference in found.items() if endpoint_id is None or one == endpoint_id][
                : show if endpoint_id is None else 1
            ],
        )

    async def apply(self, after: Sequence[Checkpoint], retried: Collection[int]) -> None:
        (checkpoint,) = after
        await self._connection.turn()
        for endpoint_id, kind in self._kinds.items():
            if kind == "extra":
                del self._live.endpoints[endpoint_id]
            else:
                self._live.endpoints[endpoint_id] = self._staging.endpoints[endpoint_id]
        known, again = self._live.dead_letters, self._staging.dead_letters
        for key in {(checkpoint.stream, position) for position in retried} & known.keys() - again.keys():
            if known[key].state == "parked":
                known[key] = replace(known[key], state="resolved")
        for key, parked in again.items():
            held = known.get(key)
            if held is None or held.state != "discarded" or held.stored_at != parked.stored_at:
                known[key] = replace(parked, attempts=parked.attempts if held is None else held.attempts)
        self._after = checkpoint

    def commit(self) -> None:
        self._database.staging.take(self._staging)
        if self._after is not None:
            self._database.live.become(self._live)
            self._database.checkpoint = self._after

    def end(self) -> None:
        self._lock.release()


def _columns(tables: Tables, endpoint_id: str) -> dict[str, Any] | None:
    """Return the columns of a row, or None if there is none."""
    row = tables.endpoints.get(endpoint_id)
    if row is None:
        return None
    columns: dict[str, Any] = {"last_event_seq": row.last_event_seq, "last_event_at": row.last_event_at}
    for facet, state in zip(FACET_COLUMNS, row.states, strict=True):
        names = [column.name for column in facet.all_columns]
        columns.update(zip(names, (*facet.values(state), state), strict=True))
    return columns


def _difference(
    endpoint_id: str, found: Mapping[str, Any] | None, implied: Mapping[str, Any] | None
) -> RowDifference | None:
    if found == implied:
        return None
    kind: DifferenceKind = "missing" if found is None else "extra" if implied is None else "different"
    before, after = found or {}, implied or {}
    names = {**before, **after}
    columns = {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
    return RowDifference(endpoint_id, kind, columns)
