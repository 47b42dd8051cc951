"""Databases with settings or changes by their owners."""

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from projector import Projector
from projector.dev.embedded import EmbeddedPostgres
from projector.errors import DatabaseRefusedError, DatabaseUnavailableError
from projector.storage.migrate import upgrade
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
        with pytest.raises(DatabaseRefusedError, match=f"{encoding}.*ENCODING 'UTF8'"):
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
        while not await scene.query("SELECT 1 FROM endpoint_state WHERE endpoint_id = $1", f"b{number}"):
            await daemon.hears("committed", daemon.recorder.heard["committed"] + 1)
    await daemon.stop()
    assert {type(error) for error in daemon.recorder.errors} <= {DatabaseUnavailableError}
    assert await scene.dead_letters() == []
    assert (await Projector(scene.settings()).verify()).clean


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
