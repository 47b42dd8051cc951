"""The daemon survives transient faults: it resumes by itself, loses nothing and parks nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from projector.app import supervisor as supervisor_module
from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres
from projector.errors import BrokerUnavailableError, CheckpointMovedError, DatabaseUnavailableError
from projector.storage import store as store_module
from tests.support.fixtures import Event, Eventually, Wire
from tests.support.scene import Scene


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Lock the table."""
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE endpoint_state IN EXCLUSIVE MODE")
        yield
    await connection.close()


async def writers_waiting(scene: Scene) -> int:
    sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return len(await scene.query(sql))


@pytest.fixture
def backlog(event: Event) -> list[Wire]:
    """Events of 50 endpoints, whose final state is reached only if every event is folded once, in order."""
    messages = []
    for number in range(500):
        endpoint_id, at = f"e{number % 50}", 1_700_000_000_000 + number
        messages += [
            event("metadata.updated", endpoint_id, added=[f"k{number}"], removed=[f"k{number - 50}"], timestamp=at),
            event("connectivity.connected", endpoint_id, appVersionName=f"v{number}", timestamp=at),
        ]
    return messages


@pytest.fixture
async def undisturbed(scene: Scene, backlog: list[Wire], other_database_url: str) -> list[tuple[object, ...]]:
    """The table that the backlog implies, without faults."""
    await scene.publish(*backlog)
    await scene.fold(url=other_database_url, consumer="undisturbed", batch_size=1000)
    return await scene.table(other_database_url)


async def test_daemon_waits_for_a_database_killed_while_it_folds(
    scene: Scene, undisturbed: object, spare_postgres: EmbeddedPostgres, spare_database_url: str
) -> None:
    scene.database_url = spare_database_url
    daemon = scene.follow(batch_size=7, until_caught_up=True)
    for commits in (5, 20, 60):
        await daemon.hears("committed", commits)
        spare_postgres.kill()
        failed = daemon.recorder.heard["retrying"]
        await daemon.hears("retrying", failed + 2)
        spare_postgres.start()
    heard = await daemon.end()
    assert {type(error) for error in heard.errors} == {DatabaseUnavailableError}
    assert await scene.table() == undisturbed
    assert await scene.dead_letters() == []


async def test_daemon_waits_for_a_broker_killed_while_it_folds(
    scene: Scene, undisturbed: object, nats_server: EmbeddedNats
) -> None:
    daemon = scene.follow(batch_size=7, until_caught_up=True)
    for commits in (5, 20, 60):
        await daemon.hears("committed", commits)
        nats_server.kill()
        failed = daemon.recorder.heard["retrying"]
        await daemon.hears("retrying", failed + 2)
        nats_server.start()
    heard = await daemon.end()
    assert {type(error) for error in heard.errors} == {BrokerUnavailableError}
    assert await scene.table() == undisturbed
    assert await scene.dead_letters() == []


async def test_repeatedly_terminated_database_connections_lose_nothing(scene: Scene, undisturbed: object) -> None:
    daemon = scene.follow(batch_size=20, until_caught_up=True)
    for commits in (5, 10, 20, 30, 40):
        await daemon.hears("committed", commits)
        await scene.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await daemon.end()
    assert await scene.table() == undisturbed
    assert await scene.dead_letters() == []


async def test_daemon_waits_for_a_locked_table(
    scene: Scene, undisturbed: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = {**store_module.LEADER_SETTINGS, "lock_timeout": "50ms"}
    monkeypatch.setattr(store_module, "LEADER_SETTINGS", impatient)
    async with locked(scene.database_url):
        daemon = scene.follow(batch_size=20, until_caught_up=True)
        await daemon.hears("retrying", 3)
    await daemon.end()
    assert {type(error) for error in daemon.recorder.errors} == {DatabaseUnavailableError}
    assert await scene.table() == undisturbed
    assert await scene.dead_letters() == []


async def test_daemon_waits_for_servers_that_start_later(
    scene: Scene, undisturbed: object, nats_server: EmbeddedNats
) -> None:
    nats_server.stop()
    daemon = scene.follow(until_caught_up=True)
    await daemon.hears("retrying", 2)
    nats_server.start()
    await daemon.end()
    assert await scene.table() == undisturbed


async def test_a_daemon_can_be_stopped_while_it_waits_for_a_server(scene: Scene, nats_server: EmbeddedNats) -> None:
    nats_server.stop()
    daemon = scene.follow()
    await daemon.hears("retrying", 2)
    await daemon.stop()


async def test_stopping_finishes_the_current_batch(scene: Scene, event: Event, eventually: Eventually) -> None:
    daemon = scene.follow()
    await daemon.hears("active")
    async with locked(scene.database_url):
        await scene.publish(event("connectivity.connected", "e"))
        await eventually(lambda: writers_waiting(scene))
        stopping = asyncio.create_task(daemon.stop())
    await stopping
    assert [row[0] for row in await scene.table()] == ["e"]
    assert await scene.position() == 1


async def test_idle_daemon_folds_new_messages_and_stops_at_once(scene: Scene, event: Event) -> None:
    daemon = scene.follow()
    await daemon.hears("caught up at 0")
    for number in range(1, 4):
        await scene.publish(event("connectivity.connected", f"e{number}"))
        await daemon.hears("committed", number)
    assert [row[0] for row in await scene.table()] == ["e1", "e2", "e3"]
    await daemon.stop()


async def test_standby_takes_over_from_the_leader(scene: Scene, event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_STANDBY_POLL_S", 0.05)
    first = scene.follow()
    await first.hears("active")
    second = scene.follow()
    await second.hears("standing by")
    await scene.publish(event("connectivity.connected", "e1"))
    await first.hears("committed")
    assert second.recorder.heard["active"] == 0
    await first.stop()
    await second.hears("active from 1")
    await scene.publish(event("connectivity.connected", "e2"))
    await second.hears("committed")
    assert [row[0] for row in await scene.table()] == ["e1", "e2"]
    assert first.recorder.errors == second.recorder.errors == []


async def test_two_leaders_fold_every_event_once(
    scene: Scene, undisturbed: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock only avoids wasted work; the checkpoint ensures safety."""

    async def lead(store: store_module.Store) -> bool:
        del store
        return True

    monkeypatch.setattr(store_module.Store, "lead", lead)
    daemons = [scene.follow(consumer=name, batch_size=20, until_caught_up=True) for name in ("one", "other")]
    heard = [await daemon.end() for daemon in daemons]
    assert {type(error) for recorder in heard for error in recorder.errors} <= {CheckpointMovedError}
    assert await scene.table() == undisturbed
