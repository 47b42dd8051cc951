"""A database that a test inspects while processes use it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.support.fixtures import Query, Rows


@dataclass(frozen=True)
class Database:
    """One migrated database."""

    url: str
    query: Query

    async def rows(self, sql: str, *arguments: Any) -> Rows:
        """Run a query."""
        return await self.query(self.url, sql, *arguments)

    async def endpoints(self) -> list[str]:
        """The ids in the table."""
        return [row[0] for row in await self.rows("SELECT endpoint_id FROM endpoint_state ORDER BY 1")]

    async def everything(self) -> list[Rows]:
        """All rows, without the times at which they were written."""
        return [
            await self.rows("SELECT * FROM endpoint_state ORDER BY endpoint_id"),
            await self.rows(
                "SELECT position, subject, headers, payload, stored_at, reason, detail, state, attempts "
                "FROM dead_letter ORDER BY position"
            ),
            await self.rows("SELECT position, anchor_stored_at, anchor_hash, skipped FROM projector_checkpoint"),
        ]

    async def a_statement_waits(self) -> bool:
        """Whether a statement waits for a lock."""
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return await self.rows(waiting) != []

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Lock the table, so that no batch can be written."""
        connection = await asyncpg.connect(self.url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE endpoint_state IN EXCLUSIVE MODE")
            yield
        await connection.close()
