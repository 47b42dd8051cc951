"""A refused login is fatal at the first start, and retried once the daemon has been accepted."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from projector.dev.embedded import EmbeddedNats
from projector.errors import BrokerLoginError, DatabaseLoginError, LoginRefusedAgainError
from projector.stream.connection import Broker
from projector.stream.provision import create_stream
from tests.support.fixtures import Event
from tests.support.patience import PATIENCE_S
from tests.support.scene import Scene

ACCEPTING = "authorization { user: projector, password: right }"
REFUSING = "authorization { user: projector, password: rotated }"


@pytest.fixture
def guarded(server_folder: Path) -> EmbeddedNats:
    return EmbeddedNats(server_folder / "guarded", config=ACCEPTING)


def url(server: EmbeddedNats) -> str:
    return server.url.replace("nats://", "nats://projector:right@")


def restart(server: EmbeddedNats, config: str) -> None:
    server.stop()
    server._config = config
    server.start()


async def test_nats_login_refused_after_it_was_accepted_is_retried(guarded: EmbeddedNats, scene: Scene) -> None:
    with guarded:
        await create_stream(Broker(urls=(url(guarded),)), scene.stream)
        daemon = scene.follow(nats_url=url(guarded))
        await daemon.hears("active")
        restart(guarded, REFUSING)
        while not any(isinstance(error, LoginRefusedAgainError) for error in daemon.recorder.errors):
            await daemon.hears("retrying", daemon.recorder.heard["retrying"] + 1)
        restart(guarded, ACCEPTING)
        await daemon.hears("active", 2)
        await daemon.stop()


async def test_nats_login_that_was_never_accepted_is_fatal(guarded: EmbeddedNats, scene: Scene) -> None:
    guarded._config = REFUSING
    with guarded, pytest.raises(BrokerLoginError):
        await scene.follow(nats_url=url(guarded)).end()


@pytest.fixture
async def admin(scene: Scene) -> AsyncIterator[asyncpg.Connection]:
    """A superuser in another database of the same server, who can rename the scene's."""
    connection = await asyncpg.connect(scene.database_url.replace("/" + name(scene), "/postgres"))
    yield connection
    await connection.close()


def name(scene: Scene) -> str:
    return scene.database_url.partition("@/")[2].partition("?")[0]


async def has_left(admin: asyncpg.Connection, column: str, value: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await admin.fetchval(f"SELECT 1 FROM pg_stat_activity WHERE {column} = $1", value):
            pass


async def rename(admin: asyncpg.Connection, before: str, after: str) -> None:
    await admin.execute(f"ALTER DATABASE {before} WITH ALLOW_CONNECTIONS false")
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", before)
    await has_left(admin, "datname", before)
    await admin.execute(f"ALTER DATABASE {before} RENAME TO {after}")
    await admin.execute(f"ALTER DATABASE {after} WITH ALLOW_CONNECTIONS true")


async def test_daemon_waits_for_a_database_missing_during_a_failover(
    scene: Scene, admin: asyncpg.Connection, event: Event
) -> None:
    database, aside = name(scene), f"{name(scene)}_aside"
    daemon = scene.follow()
    await daemon.hears("active")
    await rename(admin, database, aside)
    while not any(isinstance(error, LoginRefusedAgainError) for error in daemon.recorder.errors):
        await daemon.hears("retrying", daemon.recorder.heard["retrying"] + 1)
    await rename(admin, aside, database)
    await scene.publish(event("connectivity.connected", "e"))
    await daemon.hears("committed")
    await daemon.stop()


async def test_daemon_waits_for_a_role_that_temporarily_may_not_log_in(
    scene: Scene, admin: asyncpg.Connection, event: Event
) -> None:
    role = f"role_{name(scene)}"
    await admin.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    try:
        daemon = scene.follow(url=scene.database_url.replace("postgres@", f"{role}@"))
        await daemon.hears("active")
        await admin.execute(f"ALTER ROLE {role} NOLOGIN")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        while not any(isinstance(error, LoginRefusedAgainError) for error in daemon.recorder.errors):
            await daemon.hears("retrying", daemon.recorder.heard["retrying"] + 1)
        await admin.execute(f"ALTER ROLE {role} LOGIN")
        await scene.publish(event("connectivity.connected", "e"))
        await daemon.hears("committed")
        await daemon.stop()
    finally:
        await has_left(admin, "usename", role)  # its temporary table is dropped with its session
        await admin.execute(f"DROP ROLE {role}")


async def test_database_that_never_existed_is_fatal(scene: Scene) -> None:
    with pytest.raises(DatabaseLoginError, match="create the database"):
        await scene.follow(url=scene.database_url.replace(name(scene), "no_such_database")).end()
