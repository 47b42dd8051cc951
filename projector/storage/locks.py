"""Advisory locks: who works, and who rebuilds. Each lasts as long as the connection that took it."""

from typing import Any

from projector.errors import RebuildRunningError
from projector.storage.checkpoints import PROJECTION, SHARD

LEADER_LOCK = f"projector {PROJECTION}"
REBUILD_LOCK = f"projector {PROJECTION} rebuild"

# A lock of one 64-bit key shows in pg_locks as two halves, with objsubid 1.
_HOLDER = """
FROM pg_locks AS lock JOIN pg_stat_activity AS activity USING (pid)
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
  AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (lock.classid::bigint << 32 | lock.objid::bigint) = hashtextextended($1, $2)
"""
LEADER = (
    """
SELECT activity.application_name AS application, activity.pid AS backend_pid,
       host(activity.client_addr) AS address, activity.backend_start AS since
"""
    + _HOLDER
    + "LIMIT 1"
)
REBUILD = (
    """
SELECT activity.application_name AS application, activity.backend_start AS since
"""
    + _HOLDER
    + "AND lock.mode = 'ExclusiveLock' LIMIT 1"
)  # shared, it is held by a retry of dead letters
_REBUILDER = (
    """
SELECT format('%s, backend process %s, since %s', activity.application_name, activity.pid,
              to_char(activity.backend_start, 'YYYY-MM-DD HH24:MI:SS OF'))
"""
    + _HOLDER
    + "LIMIT 1"
)


async def lead(connection: Any) -> bool:
    """Try to become the one projector that works.

    This lock is the courtesy that keeps a second projector waiting;
    what keeps it from doing harm is the compare-and-set on the checkpoint.
    """
    granted: bool = await connection.fetchval(
        "SELECT pg_try_advisory_lock(hashtextextended($1, $2))", LEADER_LOCK, SHARD
    )
    return granted


async def is_led(connection: Any) -> bool:
    """Tell whether a projector works."""
    return await connection.fetchval("SELECT 1" + _HOLDER, LEADER_LOCK, SHARD) is not None


async def keep_rebuilds_out(connection: Any, *, shared: bool = False) -> None:
    """Make sure that nobody else rebuilds; shared, several that only fold can do so at once.

    Raises:
        RebuildRunningError: somebody does.
    """
    function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
    if not await connection.fetchval(f"SELECT {function}(hashtextextended($1, $2))", REBUILD_LOCK, SHARD):
        raise RebuildRunningError(await connection.fetchval(_REBUILDER, REBUILD_LOCK, SHARD) or "unknown")
