"""Distributes the tables of endpoints over the workers of Citus, by `endpoint_id`.

The checkpoint, dead letters and the cursor of the feed stay on the coordinator: every commit moves or may change them.
"""

from collections.abc import Mapping
from typing import Any

from projector.domain.database_info import WorkerInfo
from projector.errors import NotDistributableError
from projector.storage import checkpoints, dialect, distributed_views, locks, version
from projector.storage.connection import Connection, connect, disconnect
from projector.storage.distributed import BATCH_TABLE, SETTINGS
from projector.storage.distributed import distribute as distribute_like_state
from projector.storage.failures import translated

_KEY = "endpoint_id"
_SETTINGS: Mapping[str, str] = {**version.READ_WRITE, "lock_timeout": "10s", "statement_timeout": "0"}
_HAS_CITUS = "SELECT to_regproc('pg_catalog.citus_is_coordinator') IS NOT NULL"
# Without nodes, citus_is_coordinator() is false on the coordinator as well.
_IS_WORKER = "SELECT groupid <> 0 FROM pg_dist_local_group"
_WORKERS = "SELECT count(*) FROM pg_dist_node WHERE isactive AND shouldhaveshards"
_ASK_WORKERS = """
SELECT nodename || ':' || nodeport, success, result
FROM run_command_on_workers('SELECT current_setting(''max_prepared_transactions'')')
"""
_HOW = """
SELECT partmethod, CASE WHEN partkey IS NOT NULL THEN column_to_column_name(logicalrelid, partkey) END, colocationid
FROM pg_dist_partition WHERE logicalrelid = $1::text::regclass
"""
_BATCH_IS_UP_TO_DATE = f"""
SELECT ARRAY(
    SELECT (attname, atttypid) FROM pg_attribute
    WHERE attrelid = to_regclass('{BATCH_TABLE}') AND attnum > 0 AND NOT attisdropped AND attname <> 'part'
    ORDER BY attname
) = ARRAY(
    SELECT (attname, atttypid) FROM pg_attribute
    WHERE attrelid = 'endpoint_state'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname
)
"""
_CREATE_BATCH = f"""
DROP TABLE IF EXISTS {BATCH_TABLE};
CREATE UNLOGGED TABLE {BATCH_TABLE} AS SELECT 0::bigint AS part, * FROM endpoint_state WITH NO DATA;
CREATE INDEX ON {BATCH_TABLE} (part);
COMMENT ON TABLE {BATCH_TABLE} IS 'Rows on their way into endpoint_state; empty between transactions';
{distribute_like_state(BATCH_TABLE)};
"""
_WRITERS = """
SELECT DISTINCT quote_ident(rolname) FROM pg_class, aclexplode(relacl) AS granted, pg_roles
WHERE pg_class.oid = 'endpoint_state'::regclass AND granted.privilege_type = 'UPDATE'
  AND granted.grantee = pg_roles.oid AND granted.grantee <> relowner
"""


async def check_server(url: str) -> None:
    """Check that a server can distribute tables, migrated or not; raises NotDistributableError."""
    connection = await connect(url, purpose="distribute", settings=version.READ_ONLY)
    try:
        with translated():
            await _check_server(connection)
    finally:
        connection.terminate()


async def distribute(url: str) -> None:
    """Distribute the tables, unless they already are.

    Rows are moved in one transaction. Readers wait for its end, and no daemon may run.

    Raises:
        NotDistributableError: Citus cannot distribute them as they are.
        ProjectorRunningError: a projector runs.
        RebuildRunningError: a rebuild or verification is in progress.
    """
    connection = await connect(url, purpose="distribute", settings=_SETTINGS)
    try:
        with translated():
            await version.check(connection)
            await locks.keep_rebuilds_out(connection)
            await locks.keep_projectors_out(connection, await checkpoints.count_shards(connection))
            await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in SETTINGS.items()))
            async with connection.transaction():
                await _distribute(connection)
    finally:
        await disconnect(connection)


async def keep_up(url: str) -> None:
    """After a migration, adapt what `distribute` has created besides the tables of the migrations."""
    async with version.opened(url, purpose="distribute", settings=_SETTINGS) as connection:
        with translated():
            if await dialect.is_distributed(connection):
                async with connection.transaction():
                    await distributed_views.replace(connection)
                    await _prepare_saving(connection)


async def workers(connection: Connection) -> tuple[WorkerInfo, ...]:
    """Return the nodes that have a part of the tables."""
    return tuple(
        WorkerInfo(name=name, prepared_transactions=int(result))
        if success
        else WorkerInfo(name=name, error=" ".join(result.split()))
        for name, success, result in await connection.fetch(_ASK_WORKERS)
    )


async def has_batch_table(connection: Connection) -> bool:
    """Return whether the table into which rows are copied has the columns of `endpoint_state`."""
    return bool(await connection.fetchval(_BATCH_IS_UP_TO_DATE))


async def _check_server(connection: Connection) -> None:
    if not await connection.fetchval(_HAS_CITUS):
        raise NotDistributableError(
            "this database does not have the extension Citus",
            "create it here and on every worker with `CREATE EXTENSION citus`, and add the workers with "
            "citus_add_node; see docs/how-to/citus.md",
        )
    if await connection.fetchval(_IS_WORKER):
        raise NotDistributableError(
            "this server is a worker of Citus", "name the coordinator in PROJECTOR_DATABASE_URL"
        )
    if not await connection.fetchval(_WORKERS):
        raise NotDistributableError(
            "Citus has no node that may hold shards", "add the workers with citus_add_node; see docs/how-to/citus.md"
        )


async def _distribute(connection: Connection) -> None:
    state, log = await _how(connection, "endpoint_state"), await _how(connection, "endpoint_change")
    if log not in (None, state):
        raise _distributed_otherwise("endpoint_change", "with shards apart from those of endpoint_state")
    await distributed_views.replace(connection)
    if state is None:
        await connection.execute("SELECT create_distributed_table('endpoint_state', 'endpoint_id')")
        await connection.execute("SELECT truncate_local_data_after_distributing_table('endpoint_state')")
    if log is None:
        await connection.execute(distribute_like_state("endpoint_change"))
        await connection.execute("SELECT truncate_local_data_after_distributing_table('endpoint_change')")
    await _prepare_saving(connection)


async def _prepare_saving(connection: Connection) -> None:
    """Create the table into which rows are copied, and let every role that writes `endpoint_state` write it."""
    if not await has_batch_table(connection):
        await connection.execute(_CREATE_BATCH)
    for (role,) in await connection.fetch(_WRITERS):
        await connection.execute(f"GRANT SELECT, INSERT, DELETE ON {BATCH_TABLE} TO {role}")


async def _how(connection: Connection, table: str) -> Any:
    """Return the group of tables with which a table is distributed by endpoint; None: it is not distributed."""
    row = await connection.fetchrow(_HOW, table)
    if row is None:
        return None
    method, column, group = row
    if method == b"h" and column == _KEY:
        return group
    raise _distributed_otherwise(
        table, f"by {column}" if column is not None else "as a reference table or a table of one shard"
    )


def _distributed_otherwise(table: str, how: str) -> NotDistributableError:
    return NotDistributableError(
        f"{table} is distributed {how}, and has to be distributed by {_KEY}",
        f"run `SELECT undistribute_table('{table}')`, then `projector init --distribute`",
    )
