"""A commit that waits for a synchronous standby: the daemon is healthy, and loses and repeats nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from projector import Projector
from projector.dev.embedded import EmbeddedPostgres
from projector.errors import DatabaseUnavailableError
from projector.storage import store as store_module
from tests.support import servers, standby
from tests.support.fixtures import Event, Eventually, Rows
from tests.support.monitored import Watched, watched
from tests.support.scene import Scene
from tests.support.standby import needs_base_backup, standby_of

HEARTBEAT_PERIOD_S = 5.0
BEATS = 11
"""This many heartbeats of the supervisor take longer than the two periods without one that make a daemon unhealthy."""
COMPARED = "SELECT * FROM endpoint_state ORDER BY endpoint_id", "SELECT position, attempts FROM dead_letter ORDER BY 1"


class Cluster:
    """A database whose commits can wait for a standby."""

    def __init__(self, scene: Scene, primary: EmbeddedPostgres, eventually: Eventually) -> None:
        self.scene = scene
        self.primary = primary
        self._eventually = eventually

    async def require(self, name: str) -> None:
        """Let commits wait for a standby, and return once they do; an empty name ends all waits."""
        await self.scene.ask(self.primary.url, f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        await self.scene.ask(self.primary.url, "SELECT pg_reload_conf()")
        if name:
            await self._eventually(self._next_commit_waits)  # the checkpointer applies the setting when it gets to it

    async def _next_commit_waits(self) -> bool:
        """Commit something, and end its wait if it waits for the standby."""
        connection = await asyncpg.connect(self.primary.url)
        try:
            commit = asyncio.create_task(connection.execute("SELECT pg_logical_emit_message(true, '', '')"))
            end = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'"
            ended: Rows = []
            while not ended and not commit.done():
                ended = await self.scene.ask(self.primary.url, end, connection.get_server_pid())
            await commit
            return bool(ended)
        finally:
            await connection.close()

    async def commit_waits(self) -> bool:
        """Whether a commit waits for the standby."""
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        return await self.scene.ask(self.primary.url, waiting) != []

    async def result(self, url: str | None = None) -> list[Rows]:
        """What a daemon has made of the stream."""
        return [await self.scene.ask(url or self.scene.database_url, statement) for statement in COMPARED]


@pytest.fixture
async def cluster(scene: Scene, own_postgres: EmbeddedPostgres, eventually: Eventually) -> AsyncIterator[Cluster]:
    async with servers.database(own_postgres) as scene.database_url:
        cluster = Cluster(scene, own_postgres, eventually)
        yield cluster
        await cluster.require("")
        for daemon in scene.daemons:
            await daemon.abandon()


async def publish_some(scene: Scene, event: Event) -> None:
    """Publish events of ten endpoints, and one message that is parked."""
    await scene.publish(
        *(event("connectivity.connected", f"e{number}", appVersionName="1") for number in range(10)),
        ("kaa.v1.events.kpc.endpoint.connectivity.connected", b"\xff"),
    )


async def stays_healthy(watched: Watched) -> None:
    """Check the health at each heartbeat, and that none is late, until the daemon would be unhealthy without them."""
    heard = watched.daemon.recorder.heard["heartbeat"]
    for beat in range(heard, heard + BEATS):
        async with asyncio.timeout(2 * HEARTBEAT_PERIOD_S):  # a daemon that is silent for longer is unhealthy
            await watched.daemon.hears("heartbeat", beat + 1)
        answer = await watched.get("/healthz")
        assert answer.code == 200, answer


async def matches_the_stream(cluster: Cluster, url: str) -> bool:
    """Whether the tables are those that an undisturbed daemon makes in another database."""
    await cluster.scene.fold(url=url, consumer="undisturbed")
    return await cluster.result() == await cluster.result(url)


async def test_daemon_is_healthy_while_a_commit_waits_for_an_absent_standby(
    cluster: Cluster, event: Event, eventually: Eventually, other_database_url: str
) -> None:
    async with watched(cluster.scene, heartbeat_period_s=HEARTBEAT_PERIOD_S) as leader:
        await publish_some(cluster.scene, event)
        await leader.daemon.hears("caught up at 11")
        await cluster.require(standby.NAME)
        await publish_some(cluster.scene, event)
        await eventually(cluster.commit_waits)
        async with watched(cluster.scene, heartbeat_period_s=HEARTBEAT_PERIOD_S) as second:
            await stays_healthy(leader)
            await stays_healthy(second)
        assert await cluster.scene.position() == 11
        await cluster.require("")
        await leader.daemon.hears("caught up at 22")
        assert leader.daemon.recorder.errors == []
        await leader.daemon.stop()
    assert await matches_the_stream(cluster, other_database_url)


@needs_base_backup
async def test_session_that_opens_without_its_standby_waits_until_it_comes_back(
    cluster: Cluster, event: Event, eventually: Eventually, other_database_url: str, server_folder: Path
) -> None:
    await publish_some(cluster.scene, event)
    await cluster.require(standby.NAME)
    async with watched(cluster.scene, heartbeat_period_s=HEARTBEAT_PERIOD_S) as daemon:
        await eventually(cluster.commit_waits)
        await stays_healthy(daemon)
        with standby_of(cluster.primary, server_folder / "standby"):
            await daemon.daemon.hears("caught up at 11")
            assert daemon.daemon.recorder.errors == []
            await daemon.daemon.stop()
            await cluster.require("")
    assert await matches_the_stream(cluster, other_database_url)


async def test_commit_that_waits_for_longer_than_its_timeout_is_folded_once(
    cluster: Cluster,
    event: Event,
    eventually: Eventually,
    other_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "_COMMAND_TIMEOUT_S", 0.5)
    daemon = cluster.scene.follow()
    await daemon.hears("active")
    await cluster.require(standby.NAME)
    await publish_some(cluster.scene, event)
    await eventually(cluster.commit_waits)
    await daemon.hears("retrying", 3)
    assert {(type(error), str(error)) for error in daemon.recorder.errors} == {
        (DatabaseUnavailableError, "Postgres did not answer in time")
    }
    await publish_some(cluster.scene, event)
    await cluster.require("")
    await daemon.hears("caught up at 22")
    await daemon.stop()
    assert await matches_the_stream(cluster, other_database_url)


async def test_daemon_that_ends_while_its_commit_waits_leaves_the_batch_to_the_next(
    cluster: Cluster, event: Event, eventually: Eventually, other_database_url: str
) -> None:
    daemon = cluster.scene.follow()
    await daemon.hears("active")
    await cluster.require(standby.NAME)
    await publish_some(cluster.scene, event)
    await eventually(cluster.commit_waits)
    await daemon.abandon()
    successor = cluster.scene.follow(until_caught_up=True)
    await cluster.require("")
    await successor.end()
    assert await matches_the_stream(cluster, other_database_url)


async def test_rebuild_is_reported_as_done_only_once_the_standby_has_it(
    cluster: Cluster, event: Event, eventually: Eventually, other_database_url: str
) -> None:
    await publish_some(cluster.scene, event)
    await cluster.scene.fold()
    await cluster.scene.query("DELETE FROM endpoint_state WHERE endpoint_id = 'e7'")
    await cluster.require(standby.NAME)
    rebuild = asyncio.create_task(Projector(cluster.scene.settings()).rebuild())
    await eventually(cluster.commit_waits)
    assert not rebuild.done()
    await cluster.require("")
    assert (await rebuild).differences.missing == 1
    assert await matches_the_stream(cluster, other_database_url)
