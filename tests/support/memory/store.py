"""The daemon's side of a database in memory, with the port `Store`."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import Endpoint, FacetSet
from projector.errors import DatabaseUnavailableError
from tests.support.memory.connections import Connection
from tests.support.memory.database import MemoryDatabase
from tests.support.memory.tables import load_over
from tests.support.memory.unit_of_work import MemoryUnitOfWork


class MemoryStore:
    """The port `Store`."""

    def __init__(self, database: MemoryDatabase, *, logs_changes: bool = False) -> None:
        self._logs_changes = logs_changes
        self._database = database
        self._connection = Connection(DatabaseUnavailableError)
        self._lag: int | None = None
        self._asking = 0

    async def open(self) -> None:
        await self.close()
        self._connection = await self._database.connections.connect()

    async def close(self) -> None:
        self._database.connections.disconnect(self._connection)

    async def leave(self) -> None:
        await self.close()

    async def lead(self) -> bool:
        await self._connection.turn()
        return self._database.lead(self._connection)

    def note_lag(self, messages: int) -> None:
        self._lag = messages

    async def write_lag(self) -> None:
        await self._connection.turn()
        if self._lag is not None and self._database.checkpoint is not None:
            self._database.lag = self._lag

    @property
    def logs_changes(self) -> bool:
        return self._logs_changes

    @property
    def waiting(self) -> bool:
        return self._asking > 0

    async def watch(self) -> None:
        await self._connection.lost.wait()
        await self._connection.turn()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryUnitOfWork]:
        work = MemoryUnitOfWork(self._database, self._connection, self._database.live)
        with self._counted():
            async with self._database.transaction(self._connection, work):
                yield work

    async def load(self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        with self._counted():
            await self._connection.turn()
            return load_over(self._database.live, needed, uncommitted)

    async def checkpoint(self) -> Checkpoint | None:
        await self._connection.turn()
        return self._database.checkpoint

    async def begin(self, checkpoint: Checkpoint) -> None:
        await self._connection.turn()
        if self._database.checkpoint is None:
            self._database.checkpoint = checkpoint

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1
