"""Advisory locks of leaders, workers and rebuilds. A lock lasts as long as the connection that took it."""

from typing import Any

from projector.domain.shards import Muster
from projector.errors import ProjectorRunningError, RebuildRunningError
from projector.storage.checkpoints import PROJECTION
from projector.storage.connection import Connection

LEADER_LOCK = f"projector {PROJECTION}"
"""One for each shard."""
REBUILD_LOCK = f"projector {PROJECTION} rebuild"
"""One for the projection, as if for its first shard."""
WORKERS_LOCK = f"projector {PROJECTION} workers"
"""Shared by the workers of a projection with several shards."""

# pg_locks shows a lock of one 64-bit key as two halves, with objsubid 1.
_HOLDER = """
SELECT activity.application_name AS application, activity.pid AS backend_pid,
       host(activity.client_addr) AS address, activity.backend_start AS since
FROM pg_locks AS lock JOIN pg_stat_activity AS activity USING (pid)
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
  AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (lock.classid::bigint << 32 | lock.objid::bigint) = hashtextextended($1, $2)
  AND (NOT $3 OR lock.mode = 'ExclusiveLock')
LIMIT 1
"""
_GRANTED = """
FROM pg_locks AS lock
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
  AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (lock.classid::bigint << 32 | lock.objid::bigint)
"""
_MUSTER = f"""
SELECT (SELECT count(*) {_GRANTED} = hashtextextended($1, 0)),
       ARRAY(
           SELECT shard FROM generate_series(0, $3 - 1) AS shard
           WHERE NOT EXISTS (SELECT {_GRANTED} = hashtextextended($2, shard)) ORDER BY shard
       )
"""


async def lead(connection: Connection, shard: int) -> bool:
    """Try to become the leader of a shard.

    The lock avoids wasted work; the compare-and-set on the checkpoint ensures safety.
    """
    query = "SELECT pg_try_advisory_lock(hashtextextended($1, $2))"
    return bool(await connection.fetchval(query, LEADER_LOCK, shard))


async def lead_all(connection: Connection, shards: int) -> bool:
    """Try to become the leader of every shard; if another connection leads one, lead none."""
    for shard in range(shards):
        if not await lead(connection, shard):
            for led in range(shard):
                await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, $2))", LEADER_LOCK, led)
            return False
    return True


async def holder(
    connection: Connection, lock: str, shard: int = 0, *, exclusive: bool = False
) -> dict[str, Any] | None:
    """Return the application, process, address and start of a connection that holds a lock, or None."""
    row = await connection.fetchrow(_HOLDER, lock, shard, exclusive)
    return None if row is None else dict(row)


async def keep_rebuilds_out(connection: Connection, *, shared: bool = False) -> None:
    """Take the lock of rebuilds, which connections can share; raises RebuildRunningError if another one holds it."""
    function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
    if not await connection.fetchval(f"SELECT {function}(hashtextextended($1, 0))", REBUILD_LOCK):
        found = await holder(connection, REBUILD_LOCK) or {"application": "unknown", "backend_pid": "?", "since": "?"}
        raise RebuildRunningError("{application}, backend process {backend_pid}, since {since}".format_map(found))


async def register_worker(connection: Connection) -> None:
    """Share the lock of the workers; waits while the number of shards is being changed."""
    await connection.execute("SELECT pg_advisory_lock_shared(hashtextextended($1, 0))", WORKERS_LOCK)


async def muster(connection: Connection, shards: int) -> Muster:
    """Return how many workers there are, and which shards have no leader."""
    ((workers, free),) = await connection.fetch(_MUSTER, WORKERS_LOCK, LEADER_LOCK, shards)
    return Muster(workers, tuple(free))


async def keep_projectors_out(connection: Connection, shards: int) -> None:
    """Lead every shard, and keep workers from registering; raises ProjectorRunningError if a projector runs."""
    alone = await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", WORKERS_LOCK)
    if alone and await lead_all(connection, shards):
        return
    held = WORKERS_LOCK if not alone else LEADER_LOCK
    found = [one for shard in range(shards) if (one := await holder(connection, held, 0 if not alone else shard))]
    who = found[0] if found else {"application": "unknown", "backend_pid": "?", "address": None}
    whence = f" from {who['address']}" if who["address"] else ""
    raise ProjectorRunningError("{application}, backend process {backend_pid}".format_map(who) + whence)
