"""Faults of a rebuild during and after its replay: nothing is replayed twice, and the result is reported."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from projector import Projector
from projector.app import rebuild as rebuild_module
from projector.errors import DatabaseUnavailableError
from projector.storage import staging as staging_module
from projector.storage.store import WRITER_SETTINGS
from tests.support.fixtures import Event, Eventually
from tests.support.scene import Scene
from tests.support.versions import needs_postgres

ENDPOINTS = 100


@pytest.fixture
async def wrong(scene: Scene, event: Event) -> Scene:
    """A table in which one row is missing."""
    await scene.publish(*(event("connectivity.connected", f"e{number}") for number in range(ENDPOINTS)))
    await scene.fold()
    await scene.query("DELETE FROM endpoint_state WHERE endpoint_id = 'e7'")
    return scene


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock timeout of a tenth of a second."""
    monkeypatch.setattr(staging_module, "WRITER_SETTINGS", {**WRITER_SETTINGS, "lock_timeout": "100ms"})


@asynccontextmanager
async def locked(scene: Scene, table: str, mode: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(scene.database_url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN {mode} MODE")
            yield
    finally:
        await connection.close()


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """The errors of final transactions."""
    errors: list[Exception] = []
    finish = rebuild_module._Attempt._try_to_finish

    async def finish_and_note(attempt: rebuild_module._Attempt, *phases: Any) -> rebuild_module.Report:
        try:
            return await finish(attempt, *phases)
        except DatabaseUnavailableError as error:
            errors.append(error)
            raise

    monkeypatch.setattr(rebuild_module._Attempt, "_try_to_finish", finish_and_note)
    return errors


@pytest.mark.usefixtures("impatient")
async def test_rebuild_waits_for_a_locked_table_without_another_replay(
    wrong: Scene, eventually: Eventually, failures: list[Exception]
) -> None:
    replayed: list[int] = []

    async def failed_twice() -> bool:
        return len(failures) >= 2

    async with locked(wrong, "endpoint_state", "SHARE"):
        projector = Projector(wrong.settings())
        rebuild = asyncio.create_task(projector.rebuild(progress=lambda position, _: replayed.append(position)))
        await eventually(failed_twice)
    report = await rebuild
    assert (report.differences.missing, report.replayed, replayed[-1]) == (1, ENDPOINTS, ENDPOINTS)
    assert replayed == sorted(set(replayed))  # in however many batches, nothing twice
    assert (await projector.verify()).clean


@pytest.mark.usefixtures("impatient")
async def test_locked_staging_tables_do_not_fail_a_finished_rebuild(
    wrong: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    projector = Projector(wrong.settings())
    finish = rebuild_module._Attempt._try_to_finish
    async with AsyncExitStack() as held:

        async def finish_while_locked(attempt: rebuild_module._Attempt, *phases: Any) -> rebuild_module.Report:
            await held.enter_async_context(locked(wrong, "endpoint_state_rebuild", "ACCESS SHARE"))
            return await finish(attempt, *phases)

        with monkeypatch.context() as during:
            during.setattr(rebuild_module._Attempt, "_try_to_finish", finish_while_locked)
            assert (await projector.rebuild()).differences.missing == 1
    assert (await projector.verify()).clean


@asynccontextmanager
async def role_with(scene: Scene, *settings: str) -> AsyncIterator[Projector]:
    """A projector whose role has these settings."""
    role = f"strict_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(scene.database_url)
    try:
        await connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
        for setting in settings:
            await connection.execute(f"ALTER ROLE {role} SET {setting}")
        yield Projector(scene.settings(scene.database_url.replace("postgres@", f"{role}@")))
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await connection.close()


async def test_settings_of_a_role_do_not_end_a_replay(wrong: Scene) -> None:
    async with role_with(
        wrong,
        "statement_timeout = '1ms'",
        "idle_session_timeout = '1ms'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
    ) as projector:
        assert (await projector.rebuild()).differences.missing == 1
        assert (await projector.verify()).clean


@needs_postgres(17)
async def test_transaction_timeout_of_a_role_does_not_end_a_transaction(wrong: Scene, eventually: Eventually) -> None:
    async def waits_for_longer() -> bool:
        return bool(
            await wrong.query(
                "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'projector rebuild%'"
                " AND wait_event_type = 'Lock' AND now() - xact_start > '5 s'"
            )
        )

    # Long enough for the statement that lifts the timeout, even on a busy machine.
    async with role_with(wrong, "transaction_timeout = '5s'") as projector:
        async with locked(wrong, "endpoint_state", "SHARE"):
            rebuild = asyncio.create_task(projector.rebuild())
            await eventually(waits_for_longer)
        assert (await rebuild).differences.missing == 1
        assert (await projector.verify()).clean


async def test_idle_connection_closed_by_a_proxy_is_reopened(wrong: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_module, "_REGISTERS_HELD", 10)  # each batch is loaded through the reader again
    cuts: list[asyncio.Task[object]] = []

    def cut(*_: int) -> None:
        if cuts:
            return
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'projector reader'"
        cuts.append(asyncio.create_task(wrong.query(ended)))

    projector = Projector(wrong.settings(batch_size=10))
    report = await projector.rebuild(progress=cut)
    await asyncio.gather(*cuts)
    assert len(cuts) == 1
    assert report.differences.missing == 1
