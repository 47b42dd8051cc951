"""Workers of a projection with several shards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from projector.storage.locks import WORKERS_LOCK


@asynccontextmanager
async def silent_worker(database_url: str) -> AsyncIterator[None]:
    """A worker that leads no shard, although the others leave it its share."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SELECT pg_advisory_lock_shared(hashtextextended($1, 0))", WORKERS_LOCK)
        yield
    finally:
        await connection.close()
