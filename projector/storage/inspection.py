"""Looks at a Postgres database, and changes nothing.

Whatever is asked is asked within a transaction, so that it also works where a pooler
hands each transaction to another server process.
"""

from collections.abc import Iterable, Mapping
from time import time
from typing import Any

from projector.domain.database_info import BackendInfo, DatabaseInfo
from projector.errors import DatabaseRefusedError, DatabaseUnavailableError
from projector.storage import checkpoints, locks, migrate
from projector.storage.connection import connect
from projector.storage.failures import translated
from projector.storage.store import LEADER_SETTINGS
from projector.storage.wire import set_codecs

_TIMEOUT_S = 10.0
_ROUNDS = 3

DAEMON_NEEDS: Mapping[str, tuple[str, ...]] = {
    migrate.VERSION_TABLE: ("SELECT",),
    "endpoint_state": ("SELECT", "INSERT", "UPDATE"),
    "projector_checkpoint": ("SELECT", "INSERT", "UPDATE"),
    "dead_letter": ("SELECT", "INSERT", "UPDATE"),
}
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
       has_database_privilege(current_database(), 'TEMPORARY') AS temporary,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS creates
"""
_MISSING = """
SELECT privilege || ' on ' || relation
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS needed (relation, privilege, number)
WHERE NOT has_table_privilege(to_regclass(relation)::oid, privilege)
ORDER BY number
"""
_IGNORED = """
SELECT name FROM unnest($1::text[], $2::text[]) AS asked (name, value)
WHERE current_setting(name) <> value AND name NOT LIKE 'tcp!_%' ESCAPE '!'
"""
"""A connection through a Unix socket has none of TCP's parameters."""


async def inspect(url: str) -> DatabaseInfo:
    """Return what a database tells.

    Raises:
        DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    connection = await connect(url, purpose="doctor", command_timeout_s=_TIMEOUT_S, keep_statements=False)
    try:
        with translated():
            async with connection.transaction(readonly=True):
                known = await _look(connection)
            return DatabaseInfo(**known, backends=await _backends(connection, url))
    finally:
        connection.terminate()


async def _look(connection: Any) -> dict[str, Any]:
    """Return everything but the processes, from within a transaction."""
    await set_codecs(connection)
    server = await connection.fetchrow(_SERVER)
    asked_at = time()
    clock = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    answered_at = time()
    missing = await _missing(connection, DAEMON_NEEDS)
    may_look = not [privilege for privilege in missing if privilege.startswith("SELECT")]
    found, wanted = await migrate.state(connection) if may_look else None, migrate.newest()
    return {
        "version": divmod(server["version"], 10_000),
        "encoding": server["encoding"],
        "standby": server["standby"],
        "off": frozenset(server["off"]),
        "schema": server["schema"],
        "migration": found,
        "migration_wanted": wanted,
        "missing_privileges": (
            *([] if server["temporary"] else [f"TEMPORARY on database {server['database']}"]),
            *([] if server["schema"] else ["USAGE on the schema of the tables"]),
            *missing,
        ),
        "missing_to_rebuild": (
            *([] if server["creates"] else [f"CREATE on schema {server['schema'] or 'of the tables'}"]),
            *await _missing(connection, REBUILD_NEEDS),
        ),
        "clock": (asked_at, clock, answered_at),
        "checkpoint": await checkpoints.read(connection) if may_look and found == wanted else None,
        "led": await locks.is_led(connection),
    }


async def _missing(connection: Any, needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Return which privileges on tables are missing; tables that are not there are passed over."""
    pairs = [(relation, privilege) for relation, privileges in needs.items() for privilege in privileges]
    rows = await connection.fetch(_MISSING, *map(list, zip(*pairs, strict=True)))
    return [row[0] for row in rows]


async def _backends(first: Any, url: str) -> BackendInfo:
    """Return which server processes two connections meet when they take turns."""
    announced = first.get_server_pid()
    met: tuple[set[int], set[int]] = set(), set()
    try:
        second = await connect(
            url,
            purpose="doctor",
            settings=LEADER_SETTINGS,
            command_timeout_s=_TIMEOUT_S,
            keep_statements=False,
        )
    except (DatabaseUnavailableError, DatabaseRefusedError) as error:
        return BackendInfo(
            announced=announced, first=frozenset({await _backend(first)}), second=frozenset(), refusal=str(error)
        )
    try:
        async with second.transaction():
            rows = await second.fetch(_IGNORED, *map(list, zip(*LEADER_SETTINGS.items(), strict=True)))
        for _ in range(_ROUNDS):
            met[0].add(await _backend(first))
            met[1].add(await _backend(second))
    finally:
        second.terminate()
    return BackendInfo(
        announced=announced,
        first=frozenset(met[0]),
        second=frozenset(met[1]),
        ignored=tuple(row[0] for row in rows),
    )


async def _backend(connection: Any) -> int:
    async with connection.transaction():
        process: int = await connection.fetchval("SELECT pg_backend_pid()")
        return process
