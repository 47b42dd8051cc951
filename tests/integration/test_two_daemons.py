"""Of two daemons one leads; the standby takes over when the leader is killed or paused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.fixtures import Event, Eventually, Publish, Query
from tests.support.patience import PATIENCE_S

Start: TypeAlias = Callable[[], Awaitable["Daemon"]]


class Daemon:
    """A daemon as a process, and what it has logged."""

    def __init__(self, environment: dict[str, str], folder: Path, eventually: Eventually) -> None:
        self._log = folder / f"{time.monotonic_ns()}.log"
        self._eventually = eventually
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "projector", "run"], cwd=folder, env=os.environ | environment, stderr=log
            )

    async def logs(self, event: str, times: int = 1) -> None:
        """Wait until it has logged an event a number of times."""

        async def logged() -> bool:
            assert self.process.poll() is None, self._log.read_text()
            return self.events().count(event) >= times

        await self._eventually(logged)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self._log.read_text().splitlines() if line.endswith("}")]


@pytest.fixture
def environment(nats_url: str, database_url: str, stream: str) -> dict[str, str]:
    return {
        "PROJECTOR_NATS_URL": nats_url,
        "PROJECTOR_DATABASE_URL": database_url,
        "PROJECTOR_STREAM": stream,
        "PROJECTOR_HTTP": "off",
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path, eventually: Eventually) -> Iterator[Callable[[], Daemon]]:
    started: list[Daemon] = []

    def start() -> Daemon:
        started.append(Daemon(environment, tmp_path, eventually))
        return started[-1]

    yield start
    for daemon in started:
        daemon.process.kill()
        daemon.process.wait()


@pytest.fixture
async def pair(start: Callable[[], Daemon]) -> tuple[Daemon, Daemon]:
    """A leader and a standby."""
    active = start()
    await active.logs("active")
    standby = start()
    await standby.logs("standing by")
    return active, standby


@pytest.fixture
def connect(
    publish: Publish,
    event: Event,
    query: Query,
    database_url: str,
    eventually: Eventually,
) -> Callable[..., Awaitable[None]]:
    """Publishes a connect of each endpoint that is named, and waits until they are folded."""

    async def connect(*endpoint_ids: str) -> None:
        position = await publish(*(event("connectivity.connected", endpoint_id) for endpoint_id in endpoint_ids))

        async def reached() -> bool:
            return await query(database_url, "SELECT position FROM projector_checkpoint") == [(position,)]

        await eventually(reached)

    return connect


async def active_pid(environment: dict[str, str]) -> int:
    """The process id of the leader in `projector status`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "projector", "status", "--json"), env=os.environ | environment, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    active = json.loads(output)["active"]
    assert active["since"]
    return int(active["application"].rpartition(":")[2])


async def test_standby_takes_over_when_the_leader_is_killed(
    pair: tuple[Daemon, Daemon],
    environment: dict[str, str],
    connect: Callable[..., Awaitable[None]],
) -> None:
    active, standby = pair
    await connect("e")
    assert "active" not in standby.events()
    assert await active_pid(environment) == active.process.pid

    active.process.kill()
    await standby.logs("active")
    await connect("f")
    assert await active_pid(environment) == standby.process.pid


async def test_paused_daemon_is_replaced_and_writes_nothing_when_it_resumes(
    pair: tuple[Daemon, Daemon],
    connect: Callable[..., Awaitable[None]],
    query: Query,
    database_url: str,
) -> None:
    active, standby = pair
    active.process.send_signal(signal.SIGSTOP)  # Postgres ends its session after 8 s
    await connect(*(f"e{number % 7}" for number in range(100)))
    assert "active" in standby.events()
    before = await query(database_url, "SELECT * FROM endpoint_state ORDER BY endpoint_id")

    active.process.send_signal(signal.SIGCONT)
    await active.logs("standing by")
    assert active.events().count("active") == 1
    assert await query(database_url, "SELECT * FROM endpoint_state ORDER BY endpoint_id") == before

    await connect("f")
    standby.process.terminate()
    assert await asyncio.to_thread(standby.process.wait, PATIENCE_S) == 0
    await active.logs("active", times=2)
    await connect("g")
