"""`projector run --workers`: processes that share the shards, and the one that keeps them running."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from nats.aio.client import Client

from projector.app.status import Status
from projector.errors import TransientError
from projector.runtime import Projector
from tests.support.fixtures import Event, Eventually
from tests.support.patience import PATIENCE_S
from tests.support.published import PREFIX, stored
from tests.support.scene import Scene


class Crew:
    """A daemon with workers, and what it has logged."""

    def __init__(self, scene: Scene, folder: Path, *arguments: str) -> None:
        self._log = folder / "log"
        nothing = folder / "nothing.toml"  # hides the settings of this machine, as does the omission of its variables
        nothing.touch()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PROJECTOR_")}
        environment |= {
            "PROJECTOR_CONFIG": str(nothing),
            "PROJECTOR_NATS_URL": scene.nats_url,
            "PROJECTOR_DATABASE_URL": scene.database_url,
            "PROJECTOR_HTTP": "127.0.0.1:0",
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "projector", "run", *arguments],
                cwd=folder,
                env=environment,
                stderr=log,
            )

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    async def state(self) -> dict[str, Any] | None:
        """What it answers about its state; None before it listens."""
        listening = self.events("listening")
        return await asyncio.to_thread(_get, listening[0]["http"].rstrip("/") + "/status") if listening else None

    async def end(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    @property
    def text(self) -> str:
        return self._log.read_text()

    def workers(self) -> set[int]:
        """The processes that it has started."""
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _get(url: str) -> Any:
    with urlopen(url, timeout=PATIENCE_S) as response:  # noqa: S310 - our own
        return json.load(response)


@pytest.fixture
def crews(scene: Scene, tmp_path: Path) -> Iterator[Any]:
    started: list[Crew] = []

    def start(*arguments: str) -> Crew:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Crew(scene, folder, *arguments))
        return started[-1]

    yield start
    for crew in started:
        crew.process.kill()
        crew.process.wait()


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def look(scene: Scene) -> Status | None:
    """The status; None if a server is too busy to answer."""
    with suppress(TransientError):
        return await Projector(scene.settings()).status()
    return None


async def lead_every_shard(scene: Scene, eventually: Eventually, shards: int) -> None:
    """Wait until every shard has a leader."""

    async def led() -> bool:
        status = await look(scene)
        return status is not None and [bool(one["active"]) for one in status.shards] == [True] * shards

    await eventually(led)


async def balance(scene: Scene, eventually: Eventually, crew: Crew, shards: int) -> None:
    """Wait until every worker of a crew leads its share."""

    async def is_balanced() -> bool:
        status = await look(scene)
        active = [one["active"]["application"] for one in status.shards if one["active"]] if status else []
        return len(active) == shards and {int(name.rpartition(":")[2]) for name in active} == crew.workers()

    await eventually(is_balanced)


async def connect(scene: Scene, event: Event, eventually: Eventually, count: int = 20) -> None:
    """Publish connects of endpoints, and wait until they are folded."""
    last = await scene.publish(*(event("connectivity.connected", f"e{number}") for number in range(count)))

    async def is_folded() -> bool:
        status = await look(scene)
        return status is not None and status.checkpoint_seq >= last

    await eventually(is_folded)


async def test_workers_fold_together_and_end_with_their_parent(
    scene: Scene, event: Event, eventually: Eventually, crews: Any
) -> None:
    await Projector(scene.settings()).init(shards=4)
    crew = crews("--workers", "2")
    await balance(scene, eventually, crew, 4)
    await connect(scene, event, eventually)

    async def says_so() -> bool:
        status = await crew.state()
        return status is not None and status["daemon"]["state"] == "active" and len(status["shards"] or ()) == 4

    await eventually(says_so)
    crew.process.terminate()
    assert await crew.end() == 0
    assert (await Projector(scene.settings()).verify()).clean
    assert {line["worker"] for line in crew.events("active")} == {1, 2}


async def test_a_worker_that_is_killed_is_started_again(
    scene: Scene, event: Event, eventually: Eventually, crews: Any
) -> None:
    await Projector(scene.settings()).init(shards=2)
    crew = crews("--workers", "2")
    await balance(scene, eventually, crew, 2)
    before = crew.workers()
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    await connect(scene, event, eventually)

    async def is_whole() -> bool:
        return len(crew.workers()) == 2 and killed not in crew.workers()

    await eventually(is_whole)
    assert crew.workers() & before
    assert [line["reason"] for line in crew.events("worker died")] == ["was ended by SIGKILL"]


async def test_workers_do_not_outlive_their_parent(scene: Scene, eventually: Eventually, crews: Any) -> None:
    await Projector(scene.settings()).init(shards=2)
    crew = crews("--workers", "2")
    await lead_every_shard(scene, eventually, 2)
    workers = crew.workers()
    crew.process.kill()

    async def have_ended() -> bool:
        return not any(map(runs, workers))

    await eventually(have_ended)


async def test_workers_stop_at_the_end_of_the_stream(scene: Scene, event: Event, crews: Any) -> None:
    await Projector(scene.settings()).init(shards=3)
    await scene.publish(*(event("connectivity.connected", f"e{number}") for number in range(50)))
    assert await crews("--workers", "2", "--until-caught-up").end() == 0
    assert len(await scene.table()) == 50


async def test_more_workers_than_shards_are_named(eventually: Eventually, crews: Any) -> None:
    crew = crews("--workers", "2")

    async def is_named() -> bool:
        return bool(crew.events("too many workers"))

    await eventually(is_named)
    (line,) = crew.events("too many workers")
    assert line["reason"] == "2 workers for 1 shard: some only stand by"
    assert "projector init --shards 2" in line["then"]


async def test_more_workers_than_shards_are_named_although_a_daemon_elsewhere_leads(
    scene: Scene, eventually: Eventually, crews: Any
) -> None:
    await scene.follow().hears("active")
    crew = crews("--workers", "2")

    async def is_named() -> bool:
        return bool(crew.events("too many workers"))

    await eventually(is_named)
    assert not crew.events("active")


async def test_workers_that_stand_by_are_ready_again_after_an_outage(
    scene: Scene, eventually: Eventually, crews: Any
) -> None:
    await Projector(scene.settings()).init(shards=2)
    crew = crews("--workers", "2")
    await balance(scene, eventually, crew, 2)
    spare = crews("--workers", "2")

    async def stands_by() -> bool:
        return len(spare.events("standing by")) >= 2

    async def retried() -> bool:
        return len(spare.events("retrying")) >= 2

    async def is_ready() -> bool:
        status = await spare.state()
        return status is not None and status["daemon"]["state"] == "standby"

    await eventually(stands_by)
    await scene.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '% worker %'")
    await eventually(retried)
    await eventually(is_ready)
    assert not crew.events("worker died")


async def test_a_fatal_error_of_a_worker_ends_all(scene: Scene, crews: Any) -> None:
    await scene.query("DROP TABLE projector_migration")
    crew = crews("--workers", "2")
    assert await crew.end() == 3
    assert "this version needs" in crew.text
    assert "worker" in crew.events("stopped")[-1]["reason"]


async def test_workers_go_on_if_one_of_them_reports_an_error(
    scene: Scene, nats_client: Client, event: Event, eventually: Eventually, crews: Any
) -> None:
    await Projector(scene.settings()).init(shards=2)
    crew = crews("--workers", "2", "--changes", "1d", "--publish", PREFIX)

    async def publishes() -> bool:
        return len(await stored(nats_client.jetstream())) == 20

    async def publishes_not() -> bool:
        return any("no stream stores" in line["reason"] for line in crew.events("not publishing"))

    await eventually(publishes_not)
    await Projector(scene.settings(changes="1d", publish=PREFIX)).init()
    await connect(scene, event, eventually, count=20)
    # The first shard may have gone to the other worker, which publishes and has nothing to take back.
    await eventually(publishes)
    assert crew.process.poll() is None
