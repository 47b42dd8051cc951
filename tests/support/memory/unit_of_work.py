"""One transaction in memory: the port `UnitOfWork`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import FACETS, Change, Endpoint, FacetSet
from projector.domain.messages import DeadLetter, Message
from projector.errors import CheckpointMovedError, DamagedRowError, PoisonError, RowsChangedError
from tests.support.memory.connections import Connection
from tests.support.memory.database import CheckpointLock, MemoryDatabase
from tests.support.memory.tables import StoredDeadLetter, Tables


class MemoryUnitOfWork:
    """The port `UnitOfWork`."""

    def __init__(self, database: MemoryDatabase, connection: Connection, tables: Tables) -> None:
        self._database = database
        self._connection = connection
        self._tables = tables
        self._draft = tables.draft()
        self._lock = CheckpointLock(database, connection)
        self._moved: Checkpoint | None = None
        self._logged: list[tuple[Change, Message]] = []

    async def hold(self, checkpoint: Checkpoint) -> None:
        await self._lock.take()
        found = self._moved or self._database.checkpoint
        if found is None or (found.stream, found.position) != (checkpoint.stream, checkpoint.position):
            raise CheckpointMovedError(expected=checkpoint.position, found=None if found is None else found.position)
        found.rules.check(checkpoint.rules)
        if found.generation != checkpoint.generation:
            raise RowsChangedError(generation=found.generation)

    async def load(self, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
        await self._connection.turn()
        return self._draft.load(needed)

    async def check(self, needed: Mapping[str, FacetSet]) -> None:
        await self._connection.turn()
        for endpoint_id in needed:
            if endpoint_id in self._database.damaged:
                raise DamagedRowError(endpoint_id, FACETS[0].name, "a time that no calendar has")

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        await self._connection.turn()
        for endpoint_id, endpoint in endpoints.items():
            if endpoint_id in self._database.refused | self._database.damaged:
                raise PoisonError("database-rejected", f"the row of {endpoint_id!r}")
            self._draft.save(endpoint_id, endpoint)

    async def log(self, changes: Sequence[Change], messages: Mapping[int, Message]) -> None:
        await self._connection.turn()
        self._logged += [(change, messages[change.event.stamp.position]) for change in changes]

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        await self._connection.turn()
        if not self._database.takes_dead_letters:
            raise PoisonError("database-rejected", "a dead letter")
        for letter in dead_letters:
            key = stream, letter.message.position
            known = self._draft.dead_letters.get(key)
            self._draft.dead_letters[key] = StoredDeadLetter(letter) if known is None else known.again(letter)

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        await self._lock.take()
        found = self._moved or self._database.checkpoint
        if found is None or (found.stream, found.position) != (before.stream, before.position):
            raise CheckpointMovedError(expected=before.position, found=None)
        self._moved = replace(after, rules=found.rules, generation=found.generation)

    def commit(self) -> None:
        self._tables.take(self._draft)
        self._database.changes += self._logged
        if self._moved is not None:
            self._database.checkpoint = self._moved

    def end(self) -> None:
        self._lock.release()
