"""A Citus cluster of a coordinator and two workers, where a Postgres with the extension is installed.

`PROJECTOR_TEST_CITUS_BIN` names its folder of programs; without it, those of Debian are searched.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import asyncpg
import pytest

from projector.dev.embedded import EmbeddedPostgres
from projector.storage.migrate import upgrade
from tests.support import servers

_NAMED = os.environ.get("PROJECTOR_TEST_CITUS_BIN")
SHARDS = 4
NEEDED = {
    "shared_preload_libraries": "citus",
    "max_prepared_transactions": "100",
    "citus.node_conninfo": "sslmode=disable",
    # Statistics are sent to the vendor otherwise.
    "citus.enable_statistics_collection": "off",
}
_SETTINGS = {
    **servers.SETTINGS,
    **NEEDED,
    "citus.shard_count": str(SHARDS),
    # Tests prepare transactions of their own, which a late recovery would take for lost ones.
    "citus.recover_2pc_interval": "-1",
    # Different from the settings of a daemon's connection, so that it shows if a worker uses its own.
    "timezone": "Asia/Tokyo",
    "intervalstyle": "postgres_verbose",
}


@cache
def _programs() -> Path | None:
    """Return the programs of a Postgres that has the extension."""
    candidates = [Path(_NAMED)] if _NAMED else [servers.POSTGRES_BIN, *Path("/usr/lib/postgresql").glob("*/bin")]
    for folder in candidates:
        pg_config = folder / "pg_config"
        if pg_config.exists():
            shared = subprocess.run([pg_config, "--sharedir"], check=True, capture_output=True, text=True).stdout
            if (Path(shared.strip()) / "extension" / "citus.control").exists():
                return folder
    return None


needs_citus = pytest.mark.skipif(
    _programs() is None,
    reason="no installed Postgres has the extension Citus; PROJECTOR_TEST_CITUS_BIN can name its programs",
)


@contextmanager
def cluster_in(folder: Path, settings: Mapping[str, str] = _SETTINGS) -> Iterator[list[EmbeddedPostgres]]:
    """Start three servers for the length of a block: the coordinator, then the workers."""
    with ExitStack() as running:
        yield [
            running.enter_context(EmbeddedPostgres(folder / name, settings, programs=_programs()))
            for name in ("coordinator", "one", "two")
        ]


def sockets(coordinator: EmbeddedPostgres) -> tuple[str, str, str]:
    """Return the folders of the sockets: of the coordinator, then of the workers."""
    folder = coordinator._folder.parent
    return tuple(str(folder / name / "data") for name in ("coordinator", "one", "two"))  # type: ignore[return-value]


async def create_database(coordinator: EmbeddedPostgres, name: str) -> str:
    """Create a database of this name on every node, and make them one cluster; return the URL at the coordinator."""
    own, *workers = sockets(coordinator)
    for host in (*workers, own):
        await _execute(host, "postgres", f'CREATE DATABASE "{name}" TEMPLATE template0')
        await _execute(host, name, "CREATE EXTENSION citus")
    await _execute(own, name, f"SELECT citus_set_coordinator_host('{own}', 5432)")
    for host in workers:
        await _execute(own, name, f"SELECT citus_add_node('{host}', 5432)")
    return coordinator.url_of(name)


async def create_template(coordinator: EmbeddedPostgres) -> None:
    """Create a migrated database on every node, for `copy_template`."""
    await upgrade(await create_database(coordinator, servers.MIGRATED))
    for host in sockets(coordinator):
        await _execute(host, "postgres", f"ALTER DATABASE {servers.MIGRATED} ALLOW_CONNECTIONS false")
        await _execute(
            host,
            "postgres",
            f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '{servers.MIGRATED}'",
        )


async def copy_template(coordinator: EmbeddedPostgres) -> str:
    """Create a migrated database on every node, and return its URL at the coordinator.

    It stays until the cluster ends: its maintenance daemon may start again while it is dropped.
    """
    name = f"test_{secrets.token_hex(4)}"
    for host in sockets(coordinator):
        await _execute(host, "postgres", f"CREATE DATABASE {name} TEMPLATE {servers.MIGRATED} {servers.COPY_STRATEGY}")
    return coordinator.url_of(name)


async def _execute(host: str, database: str, statement: str) -> None:
    connection = await asyncpg.connect(host=host, user="postgres", database=database)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
