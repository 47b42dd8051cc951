"""Databases whose owners have changed settings, tables or roles."""

import secrets
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from projector import Projector
from projector.dev.embedded import EmbeddedPostgres
from projector.domain.messages import Selection
from projector.errors import DatabaseRefusedError, DatabaseUnavailableError
from projector.storage.migrate import upgrade
from tests.support import servers
from tests.support.fixtures import Event, Query
from tests.support.scene import Scene


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "SQL_ASCII"])
async def test_init_refuses_a_database_that_cannot_store_every_text(
    postgres_server: EmbeddedPostgres, query: Query, encoding: str
) -> None:
    name = f"test_{secrets.token_hex(4)}"
    await query(
        postgres_server.url,
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    try:
        with pytest.raises(DatabaseRefusedError, match=f"{encoding}.*ENCODING 'UTF8' LOCALE 'C'"):
            await upgrade(postgres_server.url_of(name))
        assert await query(postgres_server.url_of(name), "SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []
    finally:
        await query(postgres_server.url, f"DROP DATABASE {name} WITH (FORCE)")


async def test_column_added_to_the_table_does_not_end_a_running_daemon(scene: Scene, event: Event) -> None:
    daemon = scene.follow()
    await scene.publish(event("connectivity.connected", "a"))
    await daemon.hears("committed")
    for number in range(3):
        await scene.query(f"ALTER TABLE endpoint_state ADD COLUMN owner_{number} text")
        await scene.query(f"ALTER TABLE projector_checkpoint ADD COLUMN note_{number} text")
        await scene.publish(event("connectivity.connected", "a"), event("connectivity.connected", f"b{number}"))
        heard = daemon.recorder.heard["committed"]  # read before each query: a commit during the query is news
        while not await scene.query("SELECT 1 FROM endpoint_state WHERE endpoint_id = $1", f"b{number}"):
            await daemon.hears("committed", heard + 1)
            heard = daemon.recorder.heard["committed"]
    await daemon.stop()
    assert {type(error) for error in daemon.recorder.errors} <= {DatabaseUnavailableError}
    assert await scene.dead_letters() == []
    assert (await Projector(scene.settings()).verify()).clean


@asynccontextmanager
async def connected(scene: Scene) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(scene.database_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def restricted(scene: Scene, event: Event) -> AsyncIterator[str]:
    """The URL of a role from which a policy hides a row of a correct table."""
    await scene.publish(event("connectivity.connected", "seen"), event("connectivity.connected", "hidden"))
    await scene.fold()
    role = f"restricted_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(scene.database_url)
    await connection.execute(
        f"""
        CREATE ROLE {role} LOGIN;
        GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
        GRANT CREATE ON SCHEMA public TO {role};
        ALTER TABLE endpoint_state ENABLE ROW LEVEL SECURITY;
        CREATE POLICY partly ON endpoint_state USING (endpoint_id <> 'hidden');
        """
    )
    yield scene.database_url.replace("postgres@", f"{role}@")
    await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await connection.close()


async def test_hidden_rows_are_reported_instead_of_being_treated_as_missing(
    scene: Scene, restricted: str, event: Event
) -> None:
    with pytest.raises(DatabaseRefusedError, match="BYPASSRLS"):
        await Projector(scene.settings(restricted)).verify()
    await scene.publish(event("connectivity.connected", "hidden"))
    with pytest.raises(DatabaseRefusedError, match="BYPASSRLS"):
        await scene.follow(url=restricted).end()
    with pytest.raises(DatabaseRefusedError, match="BYPASSRLS"):
        await Projector(scene.settings(restricted)).status()
    findings = {finding.name for finding in (await Projector(scene.settings(restricted)).doctor()).findings}
    assert "row-security" in findings


TRIGGER = """
CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
CREATE TRIGGER object BEFORE UPDATE ON projector_checkpoint FOR EACH ROW EXECUTE FUNCTION object();
"""


@pytest.mark.parametrize(
    ("obstacle", "removal"),
    [
        (TRIGGER, "DROP TRIGGER object ON projector_checkpoint"),
        (
            "ALTER TABLE projector_checkpoint ADD CONSTRAINT early CHECK (position < 2)",
            "ALTER TABLE projector_checkpoint DROP CONSTRAINT early",
        ),
    ],
    ids=["trigger", "constraint"],
)
async def test_rejected_checkpoint_is_no_fault_of_a_message(
    scene: Scene, event: Event, obstacle: str, removal: str
) -> None:
    await scene.publish(event("connectivity.connected", "a"))
    await scene.fold()
    async with connected(scene) as connection:
        await connection.execute(obstacle)
    await scene.publish(event("connectivity.connected", "b"))
    with pytest.raises(DatabaseRefusedError, match="triggers of projector_checkpoint"):
        await scene.fold()
    await scene.query(removal)
    await scene.fold()
    assert await scene.position() == 2
    assert await scene.dead_letters() == []


async def test_role_whose_transactions_are_read_only_migrates_and_discards(scene: Scene, event: Event) -> None:
    subject, _ = event("connectivity.connected", "a")
    await scene.publish((subject, b"\xff"))
    await scene.fold()
    ((name,),) = await scene.query("SELECT current_database()")
    await scene.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    projector = Projector(scene.settings())
    assert await projector.discard_dead_letters(Selection((1,)), "a test") == 1
    await upgrade(scene.database_url)


def copy_definition(table: str, source: str, target: str) -> None:
    """Create a table as it is in another database, as the troubleshooting guide describes."""
    dump = subprocess.run(
        [servers.POSTGRES_BIN / "pg_dump", "--schema-only", "--table", table, source], check=True, capture_output=True
    )
    subprocess.run([servers.POSTGRES_BIN / "psql", target], check=True, capture_output=True, input=dump.stdout)


async def test_table_that_is_gone_is_named_and_can_be_taken_from_another_database(
    scene: Scene, event: Event, other_database_url: str
) -> None:
    await scene.publish(event("connectivity.connected", "a"))
    await scene.fold()
    projector = Projector(scene.settings())
    await scene.query("DROP TABLE dead_letter CASCADE")
    await scene.query("ALTER TABLE endpoint_state DROP COLUMN previous_app_version CASCADE")
    for refused in (projector.status(), projector.rebuild()):
        with pytest.raises(DatabaseRefusedError, match="projector doctor"):
            await refused
    (found,) = [one.what for one in (await projector.doctor()).findings if one.name == "tables-altered"]
    assert found.endswith(": dead_letter, endpoint_state.previous_app_version")
    copy_definition("dead_letter", other_database_url, scene.database_url)
    await scene.query("ALTER TABLE endpoint_state ADD COLUMN previous_app_version text")
    await projector.rebuild()
    assert "tables-altered" not in {one.name for one in (await projector.doctor()).findings}
    assert (await projector.verify()).clean
