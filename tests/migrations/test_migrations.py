import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from projector.domain.endpoint import FACETS
from projector.storage import migrate
from projector.storage.tables import metadata
from projector.storage.version import MIGRATIONS, VERSION_TABLE
from projector.storage.wire import REGISTER_DECODERS, encode_registers
from tests.support.fixtures import Eventually, Query, Rows
from tests.support.migrations import migrate_to

ROW = "INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at) VALUES ('e', 1, now())"
ADVISORY_LOCK = 4_150_913_071  # of migrations/env.py, the same in every version
ROOT = Path(__file__).parents[2]

# Everything in the schema according to the catalogue, except Alembic's own table.
CATALOGUE = {
    "columns": """
        SELECT attrelid::regclass::text, attnum, attname, format_type(atttypid, atttypmod), attnotnull,
               pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND relkind IN ('r', 'p', 'v')
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attnum > 0 AND NOT attisdropped AND {mine} ORDER BY 1, 2
    """,
    "relations": """
        SELECT relname, relkind, relpersistence, reloptions, obj_description(oid, 'pg_class')
        FROM pg_class WHERE {mine} ORDER BY 1
    """,
    "views": """
        SELECT relname, pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v' AND {mine} ORDER BY 1
    """,
    "functions": """
        SELECT proname,
               CASE prokind WHEN 'a' THEN aggtransfn::text || agginitval ELSE pg_get_functiondef(pg_proc.oid) END,
               proacl::text, obj_description(pg_proc.oid, 'pg_proc')
        FROM pg_proc LEFT JOIN pg_aggregate ON aggfnoid = pg_proc.oid
        WHERE pronamespace = 'public'::regnamespace ORDER BY 1
    """,
    "indexes": """
        SELECT pg_get_indexdef(indexrelid)
        FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE {mine} ORDER BY 1
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(pg_constraint.oid)
        FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid WHERE {mine} ORDER BY 1, 2
    """,
}
MINE = "relnamespace = 'public'::regnamespace AND relname NOT LIKE 'projector_migration%'"


@pytest.fixture
def catalogue(query: Query) -> Callable[[str], Awaitable[dict[str, Rows]]]:
    async def catalogue(url: str) -> dict[str, Rows]:
        return {name: await query(url, sql.format(mine=MINE)) for name, sql in CATALOGUE.items()}

    return catalogue


Catalogue = Callable[[str], Awaitable[dict[str, Rows]]]


async def sync(url: str, work: Callable[[Connection], Any]) -> Any:
    async with migrate.engine_connection(url) as connection:
        result = await connection.run_sync(work)
        await connection.commit()
        return result


def downgrade(connection: Connection) -> None:
    command.downgrade(migrate.config(connection), "base")


async def test_package_lists_exactly_the_existing_migrations(database_url: str) -> None:
    def known(connection: Connection) -> list[str]:
        scripts = ScriptDirectory.from_config(migrate.config(connection))
        return [script.revision for script in scripts.walk_revisions()]

    assert await sync(database_url, known) == list(reversed(MIGRATIONS))


async def test_migrated_database_matches_the_declared_one(database_url: str) -> None:
    def is_read_by_alembic(_: object, name: str | None, *__: object) -> bool:
        return name != "endpoint_state_endpoint_id_idx"  # its collation is not; the next test compares it

    def differences(connection: Connection) -> object:
        options: dict[str, Any] = {
            "compare_type": True,
            "compare_server_default": True,
            "version_table": VERSION_TABLE,
            "include_object": is_read_by_alembic,
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    assert await sync(database_url, differences) == []


async def test_migrated_database_matches_the_declared_one_beyond_alembics_comparison(
    database_url: str, empty_database_url: str, catalogue: Catalogue
) -> None:
    """The order of columns, storage options and predicates of indexes."""
    await sync(empty_database_url, metadata.create_all)
    assert await catalogue(database_url) == await catalogue(empty_database_url)


async def test_every_table_view_column_and_function_has_a_comment(database_url: str, catalogue: Catalogue) -> None:
    found = await catalogue(database_url)
    assert {row[0] for row in found["columns"]} == {*metadata.tables, "projector_status", "endpoint_session"}
    assert [row[:3] for row in found["columns"] if not row[-1]] == []
    assert [row[0] for row in found["relations"] if row[1] in ("r", "p", "v") and not row[-1]] == []
    assert [row[0] for row in found["functions"] if not row[-1]] == []


async def test_rows_are_updated_in_place(database_url: str, query: Query, eventually: Eventually) -> None:
    """Each page has room for new row versions, and a change updates no index."""
    options = "SELECT reloptions FROM pg_class WHERE oid = 'endpoint_state'::regclass"
    assert await query(database_url, options) == [(["fillfactor=80"],)]
    await query(database_url, ROW)
    await query(database_url, "UPDATE endpoint_state SET last_event_seq = 2, app_version = 'v', config_status = 'none'")

    async def updated() -> Rows:
        counted = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'endpoint_state'"
        return [row for row in await query(database_url, counted) if row[0]]

    await eventually(updated)  # Postgres updates its statistics when the connection is closed
    assert await updated() == [(1, 1)]


async def test_migrating_twice_changes_nothing(database_url: str, query: Query, catalogue: Catalogue) -> None:
    await query(database_url, ROW)
    before = await catalogue(database_url)
    await migrate.upgrade(database_url)
    assert await catalogue(database_url) == before
    assert await query(database_url, "SELECT endpoint_id FROM endpoint_state") == [("e",)]


async def test_rows_with_a_fingerprint_of_the_rules_get_version_0(empty_database_url: str, query: Query) -> None:
    await migrate_to(empty_database_url, "0003")
    await query(
        empty_database_url,
        """
        INSERT INTO projector_checkpoint (projection, stream, stream_created_at, position, rules_version, revision)
        VALUES ('endpoint_state', 'S', now(), 5, '1a801dfeadd6', 'kaa-2017-04')
        """,
    )
    await migrate.upgrade(empty_database_url)
    found = await query(empty_database_url, "SELECT position, rules_version, revision FROM projector_checkpoint")
    assert found == [(5, 0, "kaa-2017-04")]


async def test_downgrade_removes_everything_and_upgrade_restores_it(database_url: str, catalogue: Catalogue) -> None:
    before = await catalogue(database_url)
    await sync(database_url, downgrade)
    assert not any((await catalogue(database_url)).values())
    await migrate.upgrade(database_url)
    assert await catalogue(database_url) == before


async def migrating(url: str) -> tuple[int | None, str]:
    """Migrate like Alembic's own command line, in a separate process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", "upgrade", "head"),
        cwd=ROOT,
        env={**os.environ, "PROJECTOR_DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_concurrent_migrations_wait_for_each_other(
    empty_database_url: str, database_url: str, query: Query, eventually: Eventually, catalogue: Catalogue
) -> None:
    async def two_wait() -> bool:
        sql = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return len(await query(empty_database_url, sql)) == 2

    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
    by_alembic = asyncio.create_task(migrating(empty_database_url))
    by_init = asyncio.create_task(migrate.upgrade(empty_database_url))
    await eventually(two_wait)
    await connection.close()
    await by_init
    assert await by_alembic == (0, "")
    assert await catalogue(empty_database_url) == await catalogue(database_url)
    assert await query(empty_database_url, "SELECT count(*) FROM projector_migration") == [(1,)]


STAMP = '[7,1700000000000,"epr","a \\"b\\", ]"]'
REGISTERS_BEFORE = {
    "connectivity": (f"[{STAMP},null]", f"[{STAMP},null,null]"),
    "metadata": (f'[{{"k]":[true,null,{STAMP}]}},{STAMP}]', f'[{{"k]":[true,null,{STAMP}]}},{STAMP},null]'),
    "configuration": (f'[["c",{STAMP}],null]', f'[["c",{STAMP}],null,null,null]'),
}
APPLICATION_BEFORE = {
    # By endpoint: the registers before; those of application and registration after the migration.
    "all": (f'[["1, 2",{STAMP}],[null,{STAMP}],{STAMP}]', f'[["1, 2",{STAMP}],[null,{STAMP}],null]', f"[{STAMP},null]"),
    "registered": (f"[null,null,{STAMP}]", None, f"[{STAMP},null]"),
    "version": (f'[["1",{STAMP}],null,null]', f'[["1",{STAMP}],null,null]', None),
    "untouched": (None, None, None),
    "damaged": ("[[1]]", "[[1]]", None),
    "unreadable": ("no json", "no json", None),
}


async def test_migrated_registers_equal_those_that_a_rebuild_writes(empty_database_url: str, query: Query) -> None:
    await migrate_to(empty_database_url, "0004")
    for endpoint_id, (application, _, _) in APPLICATION_BEFORE.items():
        names = ", ".join(f"{facet}_registers" for facet in ("application", *REGISTERS_BEFORE))
        await query(
            empty_database_url,
            f"INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at, {names}) "
            "VALUES ($1, 7, now(), $2, $3, $4, $5)",
            *(endpoint_id, application, *(before for before, _ in REGISTERS_BEFORE.values())),
        )
    await migrate.upgrade(empty_database_url)
    names = ", ".join(f"{facet.name}_registers" for facet in FACETS)
    rows = await query(empty_database_url, f"SELECT endpoint_id, registration_status, {names} FROM endpoint_state")
    for endpoint_id, status, *registers in rows:
        _, application, registration = APPLICATION_BEFORE[endpoint_id]
        expected: dict[str, str | None] = {facet: after for facet, (_, after) in REGISTERS_BEFORE.items()}
        expected |= {"application": application, "registration": registration}
        assert dict(zip((facet.name for facet in FACETS), registers, strict=True)) == expected
        assert status == ("unknown" if registration is None else "registered")
        if endpoint_id not in ("damaged", "unreadable"):
            for decoder, text in zip(REGISTER_DECODERS, registers, strict=True):
                assert text is None or encode_registers(decoder.decode(text)) == text


async def test_downgrade_restores_the_registers_of_the_previous_version(database_url: str, query: Query) -> None:
    def down_to_0004(connection: Connection) -> None:
        command.downgrade(migrate.config(connection), "0004")

    sound = {name: rest for name, rest in APPLICATION_BEFORE.items() if name != "damaged"}
    after = {facet: after for facet, (_, after) in REGISTERS_BEFORE.items()}
    names = ", ".join(f"{facet}_registers" for facet in ("application", "registration", *after))
    for endpoint_id, (_, application, registration) in sound.items():
        await query(
            database_url,
            f"INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at, {names}) "
            "VALUES ($1, 7, now(), $2, $3, $4, $5, $6)",
            *(endpoint_id, application, registration, *after.values()),
        )
    await sync(database_url, down_to_0004)
    names = ", ".join(f"{facet}_registers" for facet in ("application", *REGISTERS_BEFORE))
    rows = await query(database_url, f"SELECT endpoint_id, {names} FROM endpoint_state")
    before = tuple(before for before, _ in REGISTERS_BEFORE.values())
    assert sorted(rows) == sorted(
        (endpoint_id, application, *before) for endpoint_id, (application, _, _) in sound.items()
    )
