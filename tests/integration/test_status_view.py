"""The view `projector_status`, for users who may read nothing else."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Any

import asyncpg
import pytest

from projector.runtime import Projector
from projector.storage import staging as staging_module
from projector.storage import store as store_module
from projector.storage.staging import Staging
from projector.stream import subjects
from tests.support.fixtures import Event, Eventually, Query
from tests.support.scene import Scene


@pytest.fixture
async def look(database_url: str, query: Query) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Reads the view as a role that may read it and nothing else."""
    role = f"onlooker_{secrets.token_hex(4)}"
    await query(database_url, f"CREATE ROLE {role} LOGIN")
    await query(database_url, f"GRANT SELECT ON projector_status TO {role}")
    connection = await asyncpg.connect(database_url.replace("postgres@", f"{role}@"))

    async def look() -> Any:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM projector_checkpoint")
        return await connection.fetchrow("SELECT * FROM projector_status")

    yield look
    await connection.close()
    await query(database_url, f"DROP OWNED BY {role}")
    await query(database_url, f"DROP ROLE {role}")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PING_EVERY_S", 0.05)
    monkeypatch.setattr(store_module, "_SEEN_AGAIN_MS", 100)


async def test_view_shows_position_and_freshness(
    scene: Scene, event: Event, look: Callable[[], Awaitable[Any]], eventually: Eventually
) -> None:
    assert await look() is None
    daemon = scene.follow()
    await daemon.hears("active")
    await scene.publish(event("connectivity.connected", "e"), (subjects.build("kpc", "config.updated"), b"\xff"))
    await eventually(lambda: at(look, 2))
    status = await look()
    assert (status["projection"], status["shard"], status["stream"]) == ("endpoint_state", 0, scene.stream)
    assert (status["active"], status["dead_letters"]) == (True, 1)
    assert status["last_event_stored_at"] < status["last_commit_at"]
    assert status["active_since"] < status["last_commit_at"]

    await daemon.stop()

    async def no_daemon_leads() -> bool:
        return not (await look())["active"]

    await eventually(no_daemon_leads)  # Postgres lets go of the lock when it has noticed
    status = await look()
    assert (status["position"], status["active_since"]) == (2, None)


async def at(look: Callable[[], Awaitable[Any]], position: int) -> bool:
    status = await look()
    return status is not None and status["position"] == position


async def test_view_updates_the_lag_while_the_stream_is_idle(
    scene: Scene, event: Event, look: Callable[[], Awaitable[Any]], eventually: Eventually
) -> None:
    await scene.publish(event("connectivity.connected", "e"))
    daemon = scene.follow()
    await daemon.hears("committed")

    async def seen() -> Any:
        status = await look()
        return status["lag_seen_at"] if status["lag_messages"] == 0 else None

    await eventually(seen)
    first = await seen()

    async def seen_again() -> bool:
        return bool(await seen() > first)

    await eventually(seen_again)


async def test_view_shows_the_lag_during_and_after_a_backlog(
    scene: Scene, event: Event, look: Callable[[], Awaitable[Any]]
) -> None:
    await scene.publish(*(event("connectivity.connected", f"e{n}") for n in range(100)))
    await scene.fold(batch_size=10)
    status = await look()
    assert (status["position"], status["lag_messages"]) == (100, 0)


async def test_writing_the_lag_does_not_wait_for_a_locked_checkpoint(
    scene: Scene, event: Event, eventually: Eventually
) -> None:
    """A rebuild locks it in its last transaction; waiting for an informational write could cost the daemon its lead."""
    await scene.publish(event("connectivity.connected", "e"))
    daemon = scene.follow()
    await daemon.hears("caught up at 1")
    tries: set[Any] = set()
    notes = (
        "SELECT query_start, wait_event_type FROM pg_stat_activity "
        "WHERE query LIKE '%SKIP LOCKED%' AND pid <> pg_backend_pid() AND datname = current_database()"
    )
    connection = await asyncpg.connect(scene.database_url)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM projector_checkpoint FOR UPDATE")

        async def tried_again_and_again() -> bool:
            for started, waits_for in await scene.query(notes):
                assert waits_for != "Lock"
                tries.add(started)
            return len(tries) > 3

        await eventually(tried_again_and_again)
    await connection.close()
    assert daemon.recorder.errors == []


async def test_view_shows_the_progress_of_a_rebuild_and_not_of_a_retry(
    scene: Scene, event: Event, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.publish(event("connectivity.connected", "e"))
    await scene.fold()
    projector = Projector(scene.settings())
    assert (await projector.status()).rebuild is None
    staging = Staging(database_url, "rebuild")
    await staging.open()
    try:
        rebuild = (await projector.status()).rebuild
        assert rebuild is not None
        assert (rebuild["position"], rebuild["target"]) == (0, 0)
        await staging.show(123_456, 999_999)
        monkeypatch.setattr(staging_module, "_SHOW_EVERY_S", inf)
        await staging.show(200_000, 999_999)  # too soon for another statement
        rebuild = (await projector.status()).rebuild
        assert rebuild is not None
        assert (rebuild["position"], rebuild["target"]) == (123_456, 999_999)
        assert rebuild["since"] is not None
    finally:
        await staging.close()
    assert (await projector.status()).rebuild is None


async def test_view_shows_the_position_of_a_verification(
    scene: Scene, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.publish(*(event("connectivity.connected", f"e{n}") for n in range(250)))
    await scene.fold()
    projector = Projector(scene.settings())
    shown: list[Any] = []
    show = Staging.show

    async def show_and_look(staging: Staging, position: int, target: int) -> None:
        await show(staging, position, target)
        monkeypatch.setattr(staging_module, "_SHOW_EVERY_S", inf)  # the next ones are too soon, however slow this is
        shown.append(((await projector.status()).rebuild, position))

    monkeypatch.setattr(Staging, "show", show_and_look)
    await projector.verify()
    assert len(shown) > 1
    assert shown[-1][1] == 250
    assert {(rebuild["position"], rebuild["target"]) for rebuild, _ in shown} == {(shown[0][1], 250)}
