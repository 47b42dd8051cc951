import asyncio
import json
import signal
import tomllib
import urllib.request
from pathlib import Path

import psutil

from projector.dev.embedded import EmbeddedPostgres
from tests.support.command_line import CommandLine
from tests.support.fixtures import Eventually, Query
from tests.support.patience import PATIENCE_S

PROGRESS = "SELECT position, (SELECT count(*) FROM endpoint_state) FROM projector_checkpoint"


def processes_in(folder: Path) -> list[list[str]]:
    """The processes that run on the data of a folder."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(str(folder) in word for word in line)]


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:  # noqa: S310 - of our own daemon
        return str(response.read().decode())


def database_url(folder: Path) -> str:
    """The database URL that a running demonstration gives to other commands."""
    return str(tomllib.loads((folder / "projector.toml").read_text("utf-8"))["database_url"])


async def test_demo_ends_its_servers_and_continues_at_the_next_start(
    anywhere: CommandLine, query: Query, eventually: Eventually, server_folder: Path
) -> None:
    demonstration = ("dev", "--data", str(server_folder), "--endpoints", "50", "--rate", "200")
    first = await anywhere.start(*demonstration)
    await first.prints("query it from another terminal")

    async def begins() -> bool:
        return [row for row in await query(database_url(server_folder), PROGRESS) if row[0] > 0] != []

    await eventually(begins)
    assert (await first.insist(signal.SIGINT)).code == 0
    assert processes_in(server_folder) == []
    with EmbeddedPostgres(server_folder / "postgres") as postgres:
        ((position, endpoints),) = await query(postgres.url, PROGRESS)
    assert 0 < endpoints <= 50

    elsewhere = {
        "PROJECTOR_NATS_URL": "nats://127.0.0.1:1",
        "PROJECTOR_NATS_API_PREFIX": "JS.OTHER.API",
        "PROJECTOR_DATABASE_URL": "postgresql://127.0.0.1:1/other",
    }
    second = await anywhere.start(*demonstration, PROJECTOR_HTTP="127.0.0.1:0", **elsewhere)
    await second.prints("query it from another terminal")
    page = (await second.prints("open it in a browser")).split()[-1]
    assert "<html" in await asyncio.to_thread(fetch, page)

    async def goes_on() -> bool:
        ((further, _),) = await query(database_url(server_folder), PROGRESS)
        return bool(further > position)

    await eventually(goes_on)
    assert (await second.insist(signal.SIGINT)).code == 0
    assert processes_in(server_folder) == []


async def test_demo_ends_by_itself_after_its_duration(anywhere: CommandLine, server_folder: Path) -> None:
    ended = await anywhere("dev", "--data", str(server_folder), "--endpoints", "50", "--duration", "1")
    assert ended.code == 0, ended
    assert processes_in(server_folder) == []


async def test_commands_with_the_settings_of_the_demo_read_its_revision(
    anywhere: CommandLine, server_folder: Path, eventually: Eventually, query: Query
) -> None:
    today = "kaa-2020-05"
    demo = await anywhere.start("dev", "--data", str(server_folder), "--rate", "500", PROJECTOR_REVISION=today)
    await demo.prints("query it from another terminal")

    async def folds() -> bool:
        return bool(await query(database_url(server_folder), "SELECT FROM endpoint_state LIMIT 1"))

    await eventually(folds)
    ended = await anywhere("verify", "--config", str(server_folder / "projector.toml"))
    assert ended.code == 0, ended
    demo.send(signal.SIGINT)
    assert (await demo.end()).code == 0


async def test_demo_publishes_its_changes_and_other_commands_see_how_far(
    anywhere: CommandLine, server_folder: Path, eventually: Eventually
) -> None:
    demo = await anywhere.start("dev", "--data", str(server_folder), "--rate", "500", PROJECTOR_PUBLISH="fleet")
    await demo.prints("query it from another terminal")

    async def publishes() -> bool:
        shown = await anywhere.succeeds("status", "--json", "--config", str(server_folder / "projector.toml"))
        publish = json.loads(shown)["publish"]
        return publish["prefix"] == "fleet" and bool(publish["cursor"])

    await eventually(publishes)
    demo.send(signal.SIGINT)
    assert (await demo.end()).code == 0


async def test_demo_with_a_wrong_setting_leaves_no_settings_for_other_commands(
    anywhere: CommandLine, server_folder: Path
) -> None:
    refused = await anywhere("dev", "--data", str(server_folder), PROJECTOR_PUBLISH="fleet", PROJECTOR_CHANGES="off")
    assert refused.code == 2, refused
    assert not (server_folder / "projector.toml").exists()


async def test_a_file_in_place_of_the_data_folder_is_a_wrong_setting(anywhere: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    refused = await anywhere("dev", "--data", str(file))
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--data" in refused.err
