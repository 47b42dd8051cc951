"""Inspects a Postgres database in transactions that change nothing; it also works behind a transaction pooler."""

import asyncio
from collections.abc import Iterable, Mapping
from time import monotonic, time
from typing import Any

from projector.domain.database_info import BackendInfo, DatabaseInfo
from projector.errors import DatabaseRefusedError, DatabaseUnavailableError
from projector.storage import checkpoints, dialect, distribution, feed_state, locks, version
from projector.storage.connection import Connection, connect
from projector.storage.distributed import BATCH_TABLE
from projector.storage.failures import translated
from projector.storage.store import LEADER_SETTINGS
from projector.storage.tables import metadata
from projector.storage.wire import set_codecs

_TIMEOUT_S = 10.0
_ROUNDS = 3
_TAKEOVER_S = 3.0
"""How long a shard has no leader after a worker gives it up, with a margin."""
_POLL_S = 0.2

DAEMON_NEEDS: dict[str, tuple[str, ...]] = {
    version.VERSION_TABLE: ("SELECT",),
    "endpoint_state": ("SELECT", "INSERT", "UPDATE"),
    "projector_checkpoint": ("SELECT", "INSERT", "UPDATE"),
    "dead_letter": ("SELECT", "INSERT", "UPDATE"),
}
CHANGES_NEED: dict[str, tuple[str, ...]] = {
    "endpoint_change": ("INSERT",),
    "FUNCTION endpoint_change_maintain(interval)": ("EXECUTE",),
}
"""What the daemon needs in addition, to log changes."""
PUBLISHING_NEEDS: dict[str, tuple[str, ...]] = {
    "endpoint_change": ("SELECT",),
    "projector_feed": ("SELECT", "INSERT", "UPDATE"),
}
"""What it needs in addition, to publish them."""
REBUILD_NEEDS: Mapping[str, tuple[str, ...]] = {"endpoint_state": ("DELETE",)}

_SERVER = """
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() AS standby,
       ARRAY(
           SELECT name FROM pg_settings
           WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
       ) AS off,
       current_database() AS database,
       current_schema() AS schema,
       CASE WHEN NOT EXISTS (
           SELECT FROM pg_namespace, unnest(string_to_array(current_setting('search_path'), ',')) AS named (schema)
           WHERE nspname = replace(trim(BOTH ' "' FROM named.schema), '$user', current_user)
       ) THEN current_setting('search_path') END AS search_path,
       has_database_privilege(current_database(), 'TEMPORARY') AS temporary,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS creates
"""
_MISSING = """
SELECT privilege || ' on ' || relation
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS needed (relation, privilege, number)
WHERE NOT CASE privilege
    WHEN 'EXECUTE' THEN has_function_privilege(to_regprocedure(substr(relation, 10))::oid, privilege)
    ELSE has_table_privilege(to_regclass(relation)::oid, privilege)
END
ORDER BY number
"""
_ABSENT = """
SELECT CASE WHEN to_regclass(relation) IS NULL THEN relation ELSE relation || '.' || name END
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (relation, name, number)
WHERE NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = to_regclass(relation) AND attname = name AND NOT attisdropped
)
ORDER BY number
"""
_HIDDEN = """
SELECT relation FROM unnest($1::text[]) AS wanted (relation)
WHERE to_regclass(relation) IS NOT NULL AND row_security_active(to_regclass(relation)::oid)
"""
_IGNORED = """
SELECT name FROM unnest($1::text[], $2::text[]) AS asked (name, value)
WHERE current_setting(name) <> value AND name NOT LIKE 'tcp!_%' ESCAPE '!'
"""
"""Connections over a Unix socket have no TCP parameters."""


async def inspect(url: str, *, logs_changes: bool, publish: str | None = None) -> DatabaseInfo:
    """Return what the role of a daemon sees of a database; `publish` is the prefix of published changes."""
    needs = {**DAEMON_NEEDS}
    for more in (CHANGES_NEED if logs_changes else {}, PUBLISHING_NEEDS if publish is not None else {}):
        needs |= {relation: (*needs.get(relation, ()), *privileges) for relation, privileges in more.items()}
    connection = await connect(url, purpose="doctor", command_timeout_s=_TIMEOUT_S, keep_statements=False)
    try:
        with translated():
            async with connection.transaction(readonly=True):
                known = await _look(connection, needs, publish)
            return DatabaseInfo(**known, backends=await _backends(connection, url))
    finally:
        connection.terminate()


async def _look(connection: Connection, needs: Mapping[str, Iterable[str]], publish: str | None) -> dict[str, Any]:
    """Return the fields of DatabaseInfo except `backends`."""
    (server,) = await connection.fetch(_SERVER)
    asked_at = time()
    clock = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    answered_at = time()
    missing = await _missing(connection, needs)
    may_look = not any(privilege.startswith("SELECT") for privilege in missing)
    found = await version.migration(connection) if may_look else None
    absent = await _absent(connection, needs) if found == version.NEWEST else ()
    is_distributed = await dialect.is_distributed(connection)
    if is_distributed:
        missing += await _missing(connection, {BATCH_TABLE: ("SELECT", "INSERT", "DELETE")})
    readable = found == version.NEWEST and not absent
    published = await feed_state.state(connection, publish) if readable else None
    await set_codecs(connection)
    rows = await checkpoints.read_all(connection) if readable else []
    return {
        "version": divmod(server["version"], 10_000),
        **{name: server[name] for name in ("encoding", "standby", "schema")},
        "off": frozenset(server["off"]),
        "migration": found,
        "migration_wanted": version.NEWEST,
        "search_path_without_schema": server["search_path"],
        "absent": absent,
        "row_security": tuple(row[0] for row in await connection.fetch(_HIDDEN, list(DAEMON_NEEDS))),
        "missing_privileges": (
            *([] if server["temporary"] else [f"TEMPORARY on database {server['database']}"]),
            *([] if server["schema"] or server["search_path"] else ["USAGE on the schema of the tables"]),
            *missing,
        ),
        "missing_to_rebuild": (
            *(
                []
                if server["creates"] or server["search_path"]
                else [f"CREATE on schema {server['schema'] or 'of the tables'}"]
            ),
            *await _missing(connection, REBUILD_NEEDS),
        ),
        "clock": (asked_at, clock, answered_at),
        "checkpoints": tuple(rows),
        "feed": published,
        "workers": await distribution.workers(connection) if is_distributed else (),
        "batch_table_missing": is_distributed and not await distribution.has_batch_table(connection),
        "led": await _led(connection, max((row.shard.of for row in rows), default=1)),
    }


async def _led(connection: Connection, shards: int) -> frozenset[int]:
    """Return the shards that have a leader, after waiting for one that is being taken over."""
    until = monotonic() + _TAKEOVER_S
    while True:
        free = (await locks.muster(connection, shards)).free
        if len(free) in (0, shards) or monotonic() > until:
            return frozenset(range(shards)) - set(free)
        await asyncio.sleep(_POLL_S)


async def _missing(connection: Connection, needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Return which privileges on existing tables are missing."""
    pairs = [(relation, privilege) for relation, privileges in needs.items() for privilege in privileges]
    rows = await connection.fetch(_MISSING, *map(list, zip(*pairs, strict=True)))
    return [row[0] for row in rows]


async def _absent(connection: Connection, needs: Iterable[str]) -> tuple[str, ...]:
    """Return which of the tables that are needed, and which of their columns, do not exist."""
    needed = [table for table in metadata.sorted_tables if table.name in needs]
    pairs = [(table.name, column.name) for table in needed for column in table.columns]
    rows = await connection.fetch(_ABSENT, *map(list, zip(*pairs, strict=True)))
    return tuple(dict.fromkeys(row[0] for row in rows))


async def _backends(first: Connection, url: str) -> BackendInfo:
    """Return which server processes run the transactions of two connections that take turns."""
    announced = first.get_server_pid()
    try:
        second = await connect(
            url, purpose="doctor", settings=LEADER_SETTINGS, command_timeout_s=_TIMEOUT_S, keep_statements=False
        )
    except (DatabaseUnavailableError, DatabaseRefusedError) as error:
        return BackendInfo(
            announced=announced, first=frozenset({await _backend(first)}), second=frozenset(), refusal=str(error)
        )
    try:
        async with second.transaction():
            ignored = await second.fetch(_IGNORED, *map(list, zip(*LEADER_SETTINGS.items(), strict=True)))
        met = [(await _backend(first), await _backend(second)) for _ in range(_ROUNDS)]
    finally:
        second.terminate()
    of_first, of_second = map(frozenset, zip(*met, strict=True))
    return BackendInfo(announced=announced, first=of_first, second=of_second, ignored=tuple(row[0] for row in ignored))


async def _backend(connection: Connection) -> int:
    async with connection.transaction():
        return int(await connection.fetchval("SELECT pg_backend_pid()"))
