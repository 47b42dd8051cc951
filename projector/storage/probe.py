"""A connection that stays open for whoever looks at the projection every few seconds, and must cost next to nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from projector.domain.summary import Slice, Summary
from projector.storage import migrate
from projector.storage.checkpoints import PROJECTION, SHARD
from projector.storage.connection import connect
from projector.storage.failures import translated
from projector.storage.query import READ_ONLY
from projector.storage.summary import read

_SETTINGS: Mapping[str, str] = {
    **READ_ONLY,
    # Looking must not make anybody wait: what is not answered soon is asked again later.
    "statement_timeout": "3s",
    "lock_timeout": "1s",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
_COMMAND_TIMEOUT_S = 4.0

_POSITION = "SELECT position FROM projector_checkpoint WHERE projection = $1 AND shard = $2"
_LATEST_DEAD_LETTERS = """
SELECT position, reason, left(detail, 300) AS detail, subject, parked_at
FROM dead_letter WHERE stream = $1 AND state = 'parked' ORDER BY position DESC LIMIT $2
"""
_PAGES = "SELECT pg_relation_size('endpoint_state') / current_setting('block_size')::bigint"

# A version may be as long as a message: counted are the first characters, which is what can be shown of it.
# What a slice took is told by the server's clock: on a busy client most of the time passes elsewhere.
COUNT = """
SELECT connectivity_status, coalesce(left(app_version, 100), '(unknown)'), config_status, count(*),
       extract(epoch FROM clock_timestamp() - statement_timestamp())::float8
FROM endpoint_state WHERE ctid >= $1 AND ctid < $2
GROUP BY 1, 2, 3
"""

_COUNT_TIMEOUT = "SET LOCAL statement_timeout = '80ms'"
"""Pages that have to come from the disk can take much longer than those before them."""


class Probe:
    """Where the projection is kept, for who only looks; opened before use and again after an error."""

    def __init__(self, url: str, stream: str, *, purpose: str) -> None:
        """Remember where the database is, and what to be called there: nothing is opened yet."""
        self._url = url
        self._stream = stream
        self._purpose = purpose
        self._connection: Any = None

    async def open(self) -> None:
        """Connect, or connect anew.

        Raises:
            NotMigratedError: the tables are not those of this version.
            DatabaseUnavailableError, DatabaseRefusedError: as their names say.
        """
        await self.close()
        self._connection = await connect(
            self._url, purpose=self._purpose, settings=_SETTINGS, command_timeout_s=_COMMAND_TIMEOUT_S
        )
        with translated():
            await migrate.check(self._connection)

    async def close(self) -> None:
        """Disconnect at once."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def summary(self) -> Summary:
        """Return how far the projection is and what it has, but for the number of endpoints."""
        with translated():
            return await read(self._connection, self._stream)

    async def position(self) -> int:
        """Return the position of the checkpoint; 0 as long as there is none."""
        with translated():
            return await self._connection.fetchval(_POSITION, PROJECTION, SHARD) or 0

    async def latest_dead_letters(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the dead letters that wait for somebody, the newest first."""
        with translated():
            return [dict(row) for row in await self._connection.fetch(_LATEST_DEAD_LETTERS, self._stream, limit)]

    async def pages(self) -> int:
        """Return how many pages the table has."""
        with translated():
            pages: int = await self._connection.fetchval(_PAGES)
        return pages

    async def count(self, first: int, end: int) -> Slice | None:
        """Count the endpoints on the pages from `first` up to, and without, `end`; None: that took too long."""
        with translated():
            try:
                async with self._connection.transaction():
                    await self._connection.execute(_COUNT_TIMEOUT)
                    rows = await self._connection.fetch(COUNT, (first, 0), (end, 0))
            except asyncpg.QueryCanceledError:
                return None
        return Slice([tuple(row[:4]) for row in rows], max((row[4] for row in rows), default=0.0))
