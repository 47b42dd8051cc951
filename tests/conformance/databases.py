"""Databases under test: the one in memory, and one of Postgres."""

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Protocol

from projector.app.dead_letters import RetryStore
from projector.app.explain import Records
from projector.app.ports import Staging, Store
from projector.queries import explanation
from projector.storage import dead_letters, staging, store
from tests.support.fixtures import Query
from tests.support.memory.database import MemoryDatabase
from tests.support.memory.records import MemoryRecords
from tests.support.memory.retry import MemoryRetryStore
from tests.support.memory.staging import MemoryStaging
from tests.support.memory.store import MemoryStore

STREAM = "S"


class DatabaseUnderTest(Protocol):
    """A migrated database, and queries on it."""

    async def open_store(self) -> Store: ...

    async def open_records(self) -> Records: ...

    async def open_staging(self) -> Staging: ...

    async def open_retry(self) -> RetryStore: ...

    async def close(self) -> None:
        """Close every store that was opened."""
        ...

    async def endpoints(self) -> dict[str, int]: ...

    async def dead_letters(self) -> list[tuple[int, str, int]]: ...

    async def logged_positions(self, endpoint_id: str) -> list[int]:
        """Return the positions of the changes of an endpoint in the log."""
        ...

    async def written_lag(self) -> int | None: ...

    async def discard(self, position: int) -> None: ...

    async def refuse(self, endpoint_id: str) -> None: ...

    async def lose_connections(self) -> None: ...


class MemoryDatabaseUnderTest(MemoryDatabase):
    """A database in memory."""

    async def open_store(self) -> MemoryStore:
        opened = MemoryStore(self, logs_changes=True)
        await opened.open()
        return opened

    async def open_records(self) -> MemoryRecords:
        return MemoryRecords(self, revision="kaa-2017-04")

    async def open_staging(self) -> MemoryStaging:
        opened = MemoryStaging(self)
        await opened.open()
        return opened

    async def open_retry(self) -> MemoryRetryStore:
        opened = MemoryRetryStore(self, STREAM)
        await opened.open()
        return opened

    async def close(self) -> None:
        self.connections.lose()


class PostgresDatabase:
    """A database of a Postgres server."""

    def __init__(self, url: str, query: Query) -> None:
        self._url = url
        self._query = query
        self._opened: list[store.Store | staging.Staging | dead_letters.Retry] = []
        self._records = AsyncExitStack()

    async def open_store(self) -> store.Store:
        opened = store.Store(self._url, retention=timedelta(days=1))
        self._opened.append(opened)
        await opened.open()
        return opened

    async def open_records(self) -> explanation.Records:
        return await self._records.enter_async_context(explanation.opened(self._url))

    async def open_staging(self) -> staging.Staging:
        opened = staging.Staging(self._url, "rebuild")
        self._opened.append(opened)
        await opened.open()
        return opened

    async def open_retry(self) -> dead_letters.Retry:
        opened = dead_letters.Retry(self._url, STREAM)
        self._opened.append(opened)
        await opened.open()
        return opened

    async def close(self) -> None:
        await self._records.aclose()
        for opened in self._opened:
            await opened.close()

    async def endpoints(self) -> dict[str, int]:
        rows = await self._query(self._url, "SELECT endpoint_id, last_event_seq FROM endpoint_state ORDER BY 1")
        return dict(rows)

    async def dead_letters(self) -> list[tuple[int, str, int]]:
        rows = await self._query(self._url, "SELECT position, state, attempts FROM dead_letter ORDER BY 1")
        return [(position, state, attempts) for position, state, attempts in rows]

    async def logged_positions(self, endpoint_id: str) -> list[int]:
        sql = "SELECT position FROM endpoint_change WHERE endpoint_id = $1 ORDER BY 1"
        return [position for (position,) in await self._query(self._url, sql, endpoint_id)]

    async def written_lag(self) -> int | None:
        rows = await self._query(self._url, "SELECT lag_messages FROM projector_checkpoint")
        return rows[0][0] if rows else None

    async def discard(self, position: int) -> None:
        await self._query(self._url, "UPDATE dead_letter SET state = 'discarded' WHERE position = $1", position)

    async def refuse(self, endpoint_id: str) -> None:
        await self._query(self._url, f"ALTER TABLE endpoint_state ADD CHECK (endpoint_id <> '{endpoint_id}')")

    async def lose_connections(self) -> None:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        await self._query(self._url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
