"""Real servers: one Postgres for all tests with a database for each, and a NATS for each test."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from projector.embedded import EmbeddedNats, EmbeddedPostgres

QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}
"""`synchronous_commit` stays on: a commit that was acknowledged survives even a killed Postgres."""

# Short enough for a socket, and open to the user that Postgres becomes under root: `tmp_path` is neither.
PARENT = "/tmp"  # noqa: S108 - each folder in it is made by tempfile


@pytest.fixture
def server_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pr-", dir=PARENT) as folder:
        yield Path(folder)


@pytest.fixture
def nats_server(server_folder: Path) -> Iterator[EmbeddedNats]:
    with EmbeddedNats(server_folder / "nats") as server:
        yield server


@pytest.fixture
def nats_url(nats_server: EmbeddedNats) -> str:
    return nats_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """For tests that leave it running; the others have `own_postgres`."""
    with (
        tempfile.TemporaryDirectory(prefix="pr-", dir=PARENT) as folder,
        EmbeddedPostgres(Path(folder), QUICK) as server,
    ):
        yield server


@pytest.fixture
def own_postgres(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(server_folder / "postgres", QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    from projector.storage.migrate import upgrade  # noqa: PLC0415 - tests without a database do without Alembic

    name = "migrated_template"

    async def create() -> None:
        await _execute(postgres_server, f"CREATE DATABASE {name}")
        await upgrade(postgres_server.url_of(name))

    asyncio.run(create())
    return name


@pytest.fixture
async def database_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> AsyncIterator[str]:
    async with _database(postgres_server, template=migrated_template) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    async with _database(postgres_server, template="template0") as url:
        yield url


@asynccontextmanager
async def _database(server: EmbeddedPostgres, *, template: str) -> AsyncIterator[str]:
    name = f"test_{secrets.token_hex(4)}"
    await _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield server.url_of(name)
    finally:
        await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(server: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
