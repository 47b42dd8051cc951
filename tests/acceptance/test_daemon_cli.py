import asyncio
import json
import signal
import socket
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from tests.support.command_line import CommandLine, Running
from tests.support.database import Database
from tests.support.fixtures import Event, Eventually, Publish
from tests.support.patience import PATIENCE_S
from tests.support.wire_samples import KINDS

Connect = Callable[[str], Awaitable[int]]

VECTORS = Path(__file__).parents[1] / "vectors" / "random.jsonl"
KILLS = 4


@pytest.fixture
async def idle_daemon(prepared: CommandLine) -> Running:
    daemon = await prepared.start("run")
    await daemon.logs("caught up")
    return daemon


@pytest.fixture
def connect(event: Event, publish: Publish) -> Connect:
    """Publishes that an endpoint connected."""
    return lambda endpoint_id: publish(event("connectivity.connected", endpoint_id))


@pytest.fixture
async def backlog(prepared: CommandLine, event: Event, publish: Publish) -> int:
    """A few thousand messages of every kind, some of which cannot be folded; its value is the last position."""
    await prepared.succeeds("simulate", "--endpoints", "300", "--events", "2000", "--rate", "0")
    lines = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]
    messages = [(line["subject"], bytes.fromhex(line["payload_hex"])) for line in lines]
    messages[::97] = [(messages[0][0], b"\xff")] * len(messages[::97])
    messages[50::200] = [("kaa.v1.events.kpc.endpoint.config.unheard", b"")] * len(messages[50::200])
    messages[60::300] = [event("connectivity.disconnected", endpointIds=["e1", ""])] * len(messages[60::300])
    return await publish(*messages)


async def test_idle_daemon_folds_an_event_and_stops_on_signal(
    idle_daemon: Running, connect: Connect, database: Database, eventually: Eventually
) -> None:
    await connect("e")
    await eventually(database.endpoints)
    idle_daemon.send(signal.SIGTERM)
    ended = await idle_daemon.end()
    assert (ended.code, ended.out, idle_daemon.logged[-1]["event"]) == (0, "", "stopped")
    assert idle_daemon.logged[-1]["reason"] == "SIGTERM"


async def test_daemon_announces_its_address_and_answers(prepared: CommandLine, eventually: Eventually) -> None:
    daemon = await prepared.start("run", "--http", "127.0.0.1:0")
    await daemon.logs("listening")
    await daemon.logs("caught up")
    (url,) = [entry["http"] for entry in daemon.logged if entry["event"] == "listening"]

    def fetch(path: str) -> str:
        with urllib.request.urlopen(url + path, timeout=PATIENCE_S) as response:  # noqa: S310 - of our own daemon
            return str(response.read().decode())

    assert json.loads(await asyncio.to_thread(fetch, "/healthz"))["healthy"] is True
    status = json.loads(await prepared.succeeds("status", "--json"))
    assert status.keys() <= json.loads(await asyncio.to_thread(fetch, "/status")).keys()

    async def is_active() -> bool:
        return bool(json.loads(await asyncio.to_thread(fetch, "/status"))["daemon"]["state"] == "active")

    await eventually(is_active)  # it retries for a moment if a server stalls
    daemon.send(signal.SIGTERM)
    assert (await daemon.end()).code == 0


async def test_service_manager_hears_ready_watchdog_and_stopping(prepared: CommandLine, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        async def hears(what: str, times: int = 1) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while times:
                    heard = await asyncio.get_running_loop().sock_recv(manager, 4096)
                    times -= what in heard.decode().splitlines()

        daemon = await prepared.start("run", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        await hears("READY=1")
        await hears("WATCHDOG=1", 3)
        daemon.send(signal.SIGTERM)
        await hears("STOPPING=1")
        assert (await daemon.end()).code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_lets_the_daemon_finish_its_batch(
    idle_daemon: Running, connect: Connect, database: Database, eventually: Eventually, number: signal.Signals
) -> None:
    async with database.locked():
        await connect("e")
        await eventually(database.a_statement_waits)
        idle_daemon.send(number)
    assert (await idle_daemon.end()).code == 0
    assert await database.endpoints() == ["e"]
    assert await database.rows("SELECT position FROM projector_checkpoint") == [(1,)]


async def test_daemon_stops_cleanly_from_its_first_log_line_on(prepared: CommandLine) -> None:
    daemon = await prepared.start("run")
    await daemon.logs("starting")
    ended = await daemon.insist(signal.SIGTERM)
    assert (ended.code, daemon.logged[-1]["event"]) == (0, "stopped"), ended


async def test_repeated_sigterm_changes_neither_the_clean_stop_nor_the_exit_code(
    idle_daemon: Running, connect: Connect, database: Database, eventually: Eventually
) -> None:
    async with database.locked():
        await connect("e")
        await eventually(database.a_statement_waits)
        idle_daemon.send(signal.SIGTERM)
        await idle_daemon.logs("stopping")
        idle_daemon.send(signal.SIGTERM)
    ended = await idle_daemon.insist(signal.SIGTERM)
    assert ended.code == 0, ended
    assert [line["event"] for line in idle_daemon.logged[-2:]] == ["stopping", "stopped"]
    assert await database.endpoints() == ["e"]


async def test_second_sigint_ends_a_daemon_that_waits_for_postgres(
    idle_daemon: Running, connect: Connect, database: Database, eventually: Eventually
) -> None:
    async with database.locked():
        await connect("e")
        await eventually(database.a_statement_waits)
        idle_daemon.send(signal.SIGTERM)
        await idle_daemon.logs("stopping")
        assert (await idle_daemon.insist(signal.SIGINT)).code == 130
    assert await database.endpoints() == []


async def test_repeatedly_killed_daemon_builds_the_same_table(
    prepared: CommandLine, backlog: int, database: Database, other_database: Database, eventually: Eventually
) -> None:
    async def has_passed(position: int) -> bool:
        return await database.rows("SELECT 1 FROM projector_checkpoint WHERE position >= $1", position) != []

    random = Random(20_261_124)  # noqa: S311 - repeatable is the point
    for position in sorted(random.randrange(1, backlog) for _ in range(KILLS)):
        daemon = await prepared.start("run", "--batch-size", "31")
        await eventually(lambda: has_passed(position))  # noqa: B023 - called within the loop
        assert (await daemon.kill()).code == -signal.SIGKILL
    await asyncio.gather(
        prepared.succeeds("run", "--until-caught-up", "--batch-size", "31"),
        prepared.succeeds("run", "--until-caught-up", "--consumer", "other", "--database-url", other_database.url),
    )

    expected = await other_database.everything()
    table, dead_letters, ((position, _, _, skipped),) = expected
    assert (len(table), len(dead_letters), position, skipped) == (340, 28, backlog, '{"config.unheard": 10}')
    assert await database.everything() == expected


@pytest.mark.parametrize(
    ("setting", "spoken"), [("kaa-2017-04", "kaa-2020-05"), ("kaa-2020-05", "kaa-2017-04")], ids=str
)
async def test_a_daemon_with_the_wrong_revision_names_the_right_one_once_and_folds_nothing(
    prepared: CommandLine, publish: Publish, database: Database, setting: str, spoken: str
) -> None:
    messages = [kind.message(kind.payload()) for kind in KINDS if kind.revision == spoken]
    await publish(*((message.subject, message.payload) for message in messages * 3))
    ended = await prepared("run", "--until-caught-up", PROJECTOR_REVISION=setting, PROJECTOR_BATCH_SIZE="2")
    assert ended.code == 0
    logged = [json.loads(line) for line in ended.err.splitlines()]
    (hint,) = [line for line in logged if line["event"] == "other revision"]
    assert hint["level"] == "warning"
    assert hint["revision"] == setting
    assert f"PROJECTOR_REVISION={spoken}" in hint["then"]
    assert await database.endpoints() == []
