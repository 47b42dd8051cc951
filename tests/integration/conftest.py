"""A Postgres that tests may stop, and fixtures of the daemon."""

from collections.abc import AsyncIterator, Iterator

import pytest

from projector.dev.embedded import EmbeddedPostgres
from tests.support import servers
from tests.support.fixtures import Publish, Query
from tests.support.scene import Scene


@pytest.fixture(scope="session")
def _spare_postgres() -> Iterator[EmbeddedPostgres]:
    with servers.server_folder() as folder, servers.postgres_in(folder) as server:
        yield server


@pytest.fixture
def spare_postgres(_spare_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """A server that a test may stop and restart."""
    if not _spare_postgres.is_running:
        _spare_postgres.start()
    return _spare_postgres


@pytest.fixture
async def spare_database_url(spare_postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    async with servers.database(spare_postgres) as url:
        yield url


@pytest.fixture
async def scene(nats_url: str, database_url: str, stream: str, publish: Publish, query: Query) -> AsyncIterator[Scene]:
    """A stream and a database; the daemons that a test starts between them end with it."""
    scene = Scene(nats_url, database_url, stream, publish, query)
    yield scene
    for daemon in scene.daemons:
        await daemon.abandon()
