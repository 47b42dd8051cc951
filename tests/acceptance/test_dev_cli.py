import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
from commands import CommandLine

from projector.embedded import EmbeddedPostgres

Query = Callable[..., Awaitable[list[tuple[Any, ...]]]]


def processes_in(folder: Path) -> list[str]:
    """What still runs on the data of a folder."""
    running = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(str(folder) in word for word in words):
            running.append(" ".join(words))
    return running


async def progress(query: Query, folder: Path) -> tuple[int, int]:
    """How far the demonstration has come, and how many endpoints it has."""
    with EmbeddedPostgres(folder / "postgres") as postgres:
        sql = "SELECT position, (SELECT count(*) FROM endpoint_state) FROM projector_checkpoint"
        ((position, endpoints),) = await query(postgres.url, sql)
        return position, endpoints


async def test_a_demonstration_ends_by_itself_leaves_nothing_running_and_goes_on_at_the_next_start(
    anywhere: CommandLine, query: Query, server_folder: Path
) -> None:
    demonstration = ("dev", "--data", str(server_folder), "--endpoints", "50", "--rate", "200")
    first = await anywhere(*demonstration, "--duration", "3")
    assert first.code == 0, first
    assert processes_in(server_folder) == []
    position, endpoints = await progress(query, server_folder)
    assert 0 < endpoints <= 50

    second = await anywhere.start(*demonstration)
    await second.prints(" endpoints (")
    second.send(signal.SIGINT)
    assert (await second.end()).code == 0
    assert processes_in(server_folder) == []
    further, _ = await progress(query, server_folder)
    assert further > position
