"""A Postgres that tests may end, and what drives the daemon's loop."""

import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from projector.dev.embedded import EmbeddedPostgres
from projector.storage.migrate import upgrade
from tests.support.fixtures import Publish, Query
from tests.support.scene import Scene


@pytest.fixture(scope="session")
def _spare_postgres() -> Iterator[EmbeddedPostgres]:
    with (
        tempfile.TemporaryDirectory(prefix="pr-", dir="/tmp") as folder,
        EmbeddedPostgres(Path(folder), {"fsync": "off", "full_page_writes": "off"}) as server,
    ):
        yield server


@pytest.fixture
def spare_postgres(_spare_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """A server that a test may end and start again; it lays out its data only once for all of them."""
    if not _spare_postgres.is_running:
        _spare_postgres.start()
    return _spare_postgres


@pytest.fixture
async def spare_database_url(spare_postgres: EmbeddedPostgres, query: Query) -> AsyncIterator[str]:
    name = f"test_{secrets.token_hex(4)}"
    await query(spare_postgres.url, f"CREATE DATABASE {name}")
    await upgrade(spare_postgres.url_of(name))
    yield spare_postgres.url_of(name)
    if spare_postgres.is_running:
        await query(spare_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def scene(nats_url: str, database_url: str, stream: str, publish: Publish, query: Query) -> AsyncIterator[Scene]:
    """A stream and a database; the daemons that a test starts between them end with it."""
    scene = Scene(nats_url, database_url, stream, publish, query)
    yield scene
    for daemon in scene.daemons:
        await daemon.abandon()
