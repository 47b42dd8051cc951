import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from projector.dev.embedded import EmbeddedPostgres
from projector.errors import DatabaseRefusedError, DatabaseUnavailableError, PoisonError
from projector.storage.connection import connect
from projector.storage.failures import translated
from projector.storage.migrate import engine_connection
from tests.support.fixtures import Query
from tests.support.versions import needs_postgres

INSERT = "INSERT INTO endpoint_state (endpoint_id, app_version, last_event_seq, last_event_at) "
TRIGGER = """
CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
CREATE TRIGGER object BEFORE INSERT ON endpoint_state FOR EACH ROW EXECUTE FUNCTION object();
"""
ROWS = "VALUES ('a', 'v', 1, now()), ('b', 'v', 1, now())"
LONG = "SELECT 'a', string_agg(md5(n::text), ''), 1, now() FROM generate_series(1, 1000) AS n"


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Any]:
    connection = await connect(database_url, purpose="test")
    yield connection
    connection.terminate()


@pytest.fixture
async def guest(postgres_server: EmbeddedPostgres, query: Query) -> AsyncIterator[str]:
    """A role that may do nothing."""
    name = f"guest_{secrets.token_hex(4)}"
    await query(postgres_server.url, f"CREATE ROLE {name} LOGIN")
    yield name
    await query(postgres_server.url, f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("statements", "complaint"),
    [
        (("CREATE UNIQUE INDEX ON endpoint_state (app_version)", f"{INSERT} {ROWS}"), "app_version"),
        (("CREATE INDEX ON endpoint_state (app_version)", f"{INSERT} {LONG}"), "index row requires"),
        (("ALTER TABLE endpoint_state ADD CHECK (app_version <> 'v')", f"{INSERT} {ROWS}"), "check"),
        (("ALTER TABLE endpoint_state ADD extra text NOT NULL", f"{INSERT} {ROWS}"), "extra"),
        ((TRIGGER, f"{INSERT} {ROWS}"), "not this one"),
        (("SELECT 'a'::timestamptz",), "invalid input"),
        (("SELECT convert_from('\\x00'::bytea, 'UTF8')",), "0x00"),
        (("SELECT 2147483648::integer",), "out of range"),
    ],
    ids=[
        "unique index of a user's",
        "text too long for an index of a user's",
        "check constraint of a user's",
        "mandatory column of a user's",
        "trigger that raises",
        "invalid time",
        "NUL character",
        "number out of range",
    ],
)
async def test_values_that_postgres_rejects_are_poison(
    connection: Any, statements: tuple[str, ...], complaint: str
) -> None:
    *preparations, statement = statements
    for preparation in preparations:
        await connection.execute(preparation)
    with pytest.raises(PoisonError, match=complaint) as poison, translated():
        await connection.execute(statement)
    assert poison.value.reason == "database-rejected"


@pytest.mark.parametrize(
    ("statement", "value"),
    [("SELECT $1::text", "\udc80"), ("SELECT $1::integer", 2**40), ("SELECT $1::bigint", "text")],
    ids=["lone surrogate", "too large for the type", "wrong type"],
)
async def test_a_value_that_the_driver_cannot_send_is_poison(connection: Any, statement: str, value: object) -> None:
    with pytest.raises(PoisonError, match="database-rejected"), translated():
        await connection.fetch(statement, value)


async def test_a_value_that_copy_cannot_send_is_poison(connection: Any) -> None:
    await connection.execute("CREATE TEMPORARY TABLE target (value text)")
    with pytest.raises(PoisonError, match="database-rejected"), translated():
        await connection.copy_records_to_table("target", records=[("\udc80",)])


@pytest.mark.parametrize(
    "statements",
    [
        ("SET statement_timeout = 20", "SELECT pg_sleep(60)"),
        ("SELECT pg_terminate_backend(pg_backend_pid())",),
        ("SET default_transaction_read_only = on", f"{INSERT} {ROWS}"),
        pytest.param(("SET transaction_timeout = 20", "SELECT pg_sleep(60)"), marks=needs_postgres(17)),
    ],
    ids=["statement timeout", "terminated while it works", "read-only, as a standby is", "transaction timeout"],
)
async def test_temporary_errors_are_transient(connection: Any, statements: tuple[str, ...]) -> None:
    *preparations, statement = statements
    for preparation in preparations:
        await connection.execute(preparation)
    with pytest.raises(DatabaseUnavailableError), translated():
        await connection.execute(statement)


async def test_a_connection_that_was_terminated_while_idle_is_transient(
    connection: Any, query: Query, database_url: str
) -> None:
    pid = connection.get_server_pid()
    assert await query(database_url, "SELECT pg_terminate_backend($1, 10000)", pid) == [(True,)]
    for _ in range(2):  # the second query finds a connection that is known to be closed
        with pytest.raises(DatabaseUnavailableError), translated():
            await connection.execute("SELECT 1")


async def test_lock_timeout_is_transient(connection: Any, database_url: str) -> None:
    holder = await connect(database_url, purpose="holder")
    async with holder.transaction():
        await holder.execute("LOCK TABLE endpoint_state")
        await connection.execute("SET lock_timeout = 20")
        with pytest.raises(DatabaseUnavailableError, match="lock timeout"), translated():
            await connection.execute("SELECT 1 FROM endpoint_state")
    await holder.close()


async def test_a_full_server_is_transient(
    guest: str, postgres_server: EmbeddedPostgres, query: Query, database_url: str
) -> None:
    await query(postgres_server.url, f"ALTER ROLE {guest} CONNECTION LIMIT 0")
    with pytest.raises(DatabaseUnavailableError, match="too many connections"):
        await connect(database_url.replace("postgres@", f"{guest}@"), purpose="test")


async def test_missing_server_is_transient(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError):
        await connect(f"postgresql://postgres@/postgres?host={tmp_path}", purpose="test")


async def test_missing_database_is_fatal_and_names_the_remedy(postgres_server: EmbeddedPostgres) -> None:
    with pytest.raises(DatabaseRefusedError, match=r"no_such_database.*create the database"):
        await connect(postgres_server.url_of("no_such_database"), purpose="test")


async def test_unknown_role_is_fatal_and_names_the_setting(database_url: str) -> None:
    with pytest.raises(DatabaseRefusedError, match=r"no_such_role.*PROJECTOR_DATABASE_URL"):
        await connect(database_url.replace("postgres@", "no_such_role@"), purpose="test")


async def test_a_wrong_password_is_fatal_and_is_not_shown(spare_postgres: EmbeddedPostgres, query: Query) -> None:
    role = f"sealed_{secrets.token_hex(4)}"
    await query(spare_postgres.url, f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
    rules = spare_postgres._data / "pg_hba.conf"
    rules.write_text(f"local all {role} scram-sha-256\n{rules.read_text()}")
    await query(spare_postgres.url, "SELECT pg_reload_conf()")

    await (await connect(spare_postgres.url.replace("postgres@", f"{role}:right@"), purpose="test")).close()
    with pytest.raises(DatabaseRefusedError, match="check user and password") as refused:
        await connect(spare_postgres.url.replace("postgres@", f"{role}:s3cret@"), purpose="test")
    assert "s3cret" not in str(refused.value)


async def test_missing_table_is_fatal_and_names_the_remedy(connection: Any) -> None:
    await connection.execute("DROP TABLE endpoint_state CASCADE")
    with pytest.raises(DatabaseRefusedError, match=r"endpoint_state.*projector doctor"), translated():
        await connection.execute("SELECT 1 FROM endpoint_state")


@pytest.mark.parametrize("parameter", ["connect_timeout=5", "work_mem=lots", "ssl=true"])
async def test_parameter_that_postgres_refuses_is_fatal_and_names_the_setting(
    database_url: str, parameter: str
) -> None:
    with pytest.raises(DatabaseRefusedError, match=rf"{parameter.partition('=')[0]}.*PROJECTOR_DATABASE_URL"):
        await connect(f"{database_url}&{parameter}", purpose="test")


async def test_lost_prepared_statement_is_explained_by_a_pooler(connection: Any) -> None:
    await connection.fetch("SELECT $1::integer", 1)
    await connection.execute("DEALLOCATE ALL")
    with pytest.raises(DatabaseRefusedError, match="pooler in transaction mode") as refused, translated():
        await connection.fetch("SELECT $1::integer", 1)
    assert "statement_cache_size" not in str(refused.value)


async def test_schema_that_does_not_exist_is_named(connection: Any) -> None:
    await connection.execute("SET search_path = nowhere")
    with pytest.raises(DatabaseRefusedError, match="search_path"), translated():
        await connection.execute("CREATE TABLE a (b integer)")


async def test_table_of_another_owner_is_left_to_its_owner(guest: str, database_url: str) -> None:
    connection = await connect(database_url.replace("postgres@", f"{guest}@"), purpose="test")
    with pytest.raises(DatabaseRefusedError, match="as the role that owns the tables"), translated():
        await connection.execute("DROP TABLE endpoint_state")
    await connection.close()


async def test_missing_privilege_is_fatal_and_names_the_remedy(guest: str, database_url: str) -> None:
    connection = await connect(database_url.replace("postgres@", f"{guest}@"), purpose="test")
    with pytest.raises(DatabaseRefusedError, match=r"endpoint_state.*grant"), translated():
        await connection.execute("SELECT 1 FROM endpoint_state")
    await connection.close()


@pytest.mark.parametrize(
    ("statement", "family"),
    [
        (f"{INSERT} VALUES ('a', 'v', NULL, now())", PoisonError),
        ("SELECT pg_terminate_backend(pg_backend_pid())", DatabaseUnavailableError),
        ("SELECT 1 FROM no_such_table", DatabaseRefusedError),
    ],
)
async def test_error_wrapped_by_sqlalchemy_is_translated_the_same_way(
    database_url: str, statement: str, family: type[Exception]
) -> None:
    with pytest.raises(family):
        async with engine_connection(database_url) as connection:
            await connection.execute(text(statement))


async def test_programming_error_is_not_translated() -> None:
    for error in (KeyError("x"), AttributeError("x"), ValueError("x")):
        with pytest.raises(type(error)), translated():
            raise error
