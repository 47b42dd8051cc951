import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import nats
import psutil
import pytest

from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres
from projector.errors import FatalError, SettingError
from tests.support.patience import PATIENCE_S

QUICK = {"fsync": "off"}

ABANDON = """
import json, os, signal, sys
from pathlib import Path
from projector.dev import embedded

server = getattr(embedded, sys.argv[1])(Path(sys.argv[2]))
server.start()
print(json.dumps({"pid": server.pid, "url": server.url}), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def abandoned(kind: type, folder: Path) -> tuple[psutil.Process, str]:
    """A server whose parent was killed, and its URL."""
    parent = subprocess.run(
        [sys.executable, "-c", ABANDON, kind.__name__, str(folder)],
        stdout=subprocess.PIPE,
        check=False,
        timeout=PATIENCE_S,
    )
    assert parent.returncode == -signal.SIGKILL
    report = json.loads(parent.stdout)
    return psutil.Process(report["pid"]), report["url"]


def listening(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections("inet")
    except psutil.NoSuchProcess:
        return []  # it served a connection of an earlier test


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def publish(url: str) -> None:
    async with await nats.connect(url) as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(name="S", subjects=["s.>"])
        await jetstream.publish("s.1", b"kept")


async def published(url: str) -> bytes | None:
    async with await nats.connect(url) as client:
        return (await client.jetstream().get_msg("S", seq=1)).data


async def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


@pytest.mark.parametrize("end", [EmbeddedNats.stop, EmbeddedNats.kill])
async def test_nats_restarts_on_its_port_with_its_streams(
    nats_server: EmbeddedNats, end: Callable[[EmbeddedNats], None]
) -> None:
    url = nats_server.url
    await publish(url)
    end(nats_server)
    nats_server.start()
    assert nats_server.url == url
    assert await published(url) == b"kept"


async def test_a_paused_nats_answers_nothing_until_it_is_resumed(nats_server: EmbeddedNats) -> None:
    async with await nats.connect(nats_server.url) as client:
        nats_server.pause()
        with pytest.raises(TimeoutError):
            await client.jetstream(timeout=0.1).account_info()
        nats_server.resume()
        await client.jetstream().account_info()


def test_a_paused_nats_can_be_stopped(nats_server: EmbeddedNats) -> None:
    process = psutil.Process(nats_server.pid)
    nats_server.pause()
    nats_server.stop()
    assert has_ended(process)


def test_nats_listens_on_the_given_port_of_loopback_only(server_folder: Path) -> None:
    with EmbeddedNats(server_folder) as first:
        port = int(first.url.rpartition(":")[2])
    with EmbeddedNats(server_folder, port=port) as server:
        connections = psutil.Process(server.pid).net_connections()
        assert [connection.laddr for connection in connections] == [("127.0.0.1", port)]


async def test_nats_takes_further_configuration(server_folder: Path) -> None:
    with EmbeddedNats(server_folder, config="max_payload: 4096") as server:
        async with await nats.connect(server.url) as client:
            assert client.max_payload == 4096


def test_nats_that_cannot_start_reports_why_and_unlocks_the_folder(server_folder: Path) -> None:
    broken = EmbeddedNats(server_folder, config="no_such_option: 1")
    with pytest.raises(FatalError, match="no_such_option"):
        broken.start()
    with EmbeddedNats(server_folder):
        pass


async def test_orphaned_nats_is_ended_before_its_store_is_reopened(server_folder: Path) -> None:
    leftover, url = abandoned(EmbeddedNats, server_folder)
    assert not has_ended(leftover)
    await publish(url)
    with EmbeddedNats(server_folder) as server:
        assert has_ended(leftover)
        assert await published(server.url) == b"kept"


def test_unrelated_process_with_the_id_of_a_former_server_is_not_killed(server_folder: Path) -> None:
    (server_folder / "nats.pid").write_text(str(os.getpid()))
    with EmbeddedNats(server_folder):
        pass


def test_folder_in_use_is_refused_and_its_server_keeps_running(nats_server: EmbeddedNats) -> None:
    with pytest.raises(SettingError, match="uses"):
        EmbeddedNats(nats_server._folder).start()
    assert nats_server.is_running


async def test_postgres_restarts_at_its_url_with_its_rows(own_postgres: EmbeddedPostgres) -> None:
    url = own_postgres.url
    await execute(url, "CREATE TABLE t AS SELECT 'kept'")
    for end in (own_postgres.kill, own_postgres.stop):
        postmaster = psutil.Process(own_postgres.pid)
        family = [postmaster, *postmaster.children(recursive=True)]
        assert len(family) > 1
        end()
        assert all(map(has_ended, family))
        own_postgres.start()
        assert own_postgres.url == url
        assert await execute(url, "TABLE t") == [("kept",)]


async def test_settings_apply_to_one_start_only(server_folder: Path) -> None:
    for given, found in (({"max_connections": "17"}, "17"), ({}, "100")):
        with EmbeddedPostgres(server_folder, QUICK | given) as server:
            assert await execute(server.url, "SHOW max_connections") == [(found,)]
    with pytest.raises(FatalError, match="no_such_setting"):
        EmbeddedPostgres(server_folder, {"no_such_setting": "1"}).start()


def test_postgres_listens_on_a_private_socket_only(postgres_server: EmbeddedPostgres) -> None:
    postmaster = psutil.Process(postgres_server.pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    assert [listening(process) for process in family] == [[] for _ in family]
    assert postgres_server._data.stat().st_mode & 0o077 == 0


async def test_orphaned_postgres_is_ended_before_its_data_is_reopened(server_folder: Path) -> None:
    leftover, url = abandoned(EmbeddedPostgres, server_folder)
    assert not has_ended(leftover)
    await execute(url, "CREATE TABLE t AS SELECT 'kept'")
    with EmbeddedPostgres(server_folder, QUICK) as server:
        assert has_ended(leftover)
        assert await execute(server.url, "TABLE t") == [("kept",)]


async def test_postgres_starts_if_another_process_has_its_former_process_id(
    own_postgres: EmbeddedPostgres, postgres_server: EmbeddedPostgres
) -> None:
    own_postgres.kill()
    _, *rest = own_postgres._pid_file.read_text().splitlines()
    own_postgres._pid_file.write_text("\n".join([str(postgres_server.pid), *rest, ""]))
    own_postgres.start()
    assert await execute(own_postgres.url, "SELECT 1") == [(1,)]


def test_a_path_too_long_for_a_socket_is_refused(server_folder: Path) -> None:
    with pytest.raises(SettingError, match="shorter"):
        EmbeddedPostgres(server_folder / ("x" * 90)).start()


async def test_empty_database_of_a_test_is_isolated_and_empty(
    empty_database_url: str, postgres_server: EmbeddedPostgres
) -> None:
    assert empty_database_url != postgres_server.url
    assert await execute(empty_database_url, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []


async def test_a_migrated_database_has_the_tables(database_url: str) -> None:
    assert await execute(database_url, "SELECT to_regclass('endpoint_state')::text") == [("endpoint_state",)]
