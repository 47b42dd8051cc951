"""Advisory locks of the leader and of a rebuild. A lock lasts as long as the connection that took it."""

from typing import Any

from projector.errors import RebuildRunningError
from projector.storage.checkpoints import PROJECTION, SHARD
from projector.storage.connection import Connection

LEADER_LOCK = f"projector {PROJECTION}"
REBUILD_LOCK = f"projector {PROJECTION} rebuild"

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


async def lead(connection: Connection) -> bool:
    """Try to become the leader; the lock avoids wasted work, the compare-and-set on the checkpoint ensures safety."""
    query = "SELECT pg_try_advisory_lock(hashtextextended($1, $2))"
    return bool(await connection.fetchval(query, LEADER_LOCK, SHARD))


async def holder(connection: Connection, lock: str, *, exclusive: bool = False) -> dict[str, Any] | None:
    """Return the application, process, address and start of a connection that holds a lock, or None."""
    row = await connection.fetchrow(_HOLDER, lock, SHARD, exclusive)
    return None if row is None else dict(row)


async def keep_rebuilds_out(connection: Connection, *, shared: bool = False) -> None:
    """Take the lock of rebuilds, which connections can share; raises RebuildRunningError if another one holds it."""
    function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
    if not await connection.fetchval(f"SELECT {function}(hashtextextended($1, $2))", REBUILD_LOCK, SHARD):
        found = await holder(connection, REBUILD_LOCK) or {"application": "unknown", "backend_pid": "?", "since": "?"}
        raise RebuildRunningError("{application}, backend process {backend_pid}, since {since}".format_map(found))
