import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
from commands import CommandLine, Running

Event = Callable[..., tuple[str, bytes]]
Eventually = Callable[..., Awaitable[None]]
Publish = Callable[..., Awaitable[int]]
Query = Callable[..., Awaitable[list[tuple[Any, ...]]]]

VECTORS = Path(__file__).parents[1] / "vectors" / "random.jsonl"
ENDPOINTS = "SELECT endpoint_id FROM endpoint_state ORDER BY 1"

both_signals = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Keep the table to oneself, so that a batch cannot be written."""
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE endpoint_state IN EXCLUSIVE MODE")
        yield
    await connection.close()


@both_signals
async def test_an_idle_daemon_shows_an_event_and_ends_well_when_told_to(  # noqa: PLR0913, PLR0917 - fixtures
    prepared: CommandLine,
    event: Event,
    publish: Publish,
    query: Query,
    eventually: Eventually,
    database_url: str,
    number: signal.Signals,
) -> None:
    daemon = await prepared.start("run")
    await daemon.logs("caught up")
    await publish(event("connectivity.connected", "e"))
    await eventually(lambda: query(database_url, ENDPOINTS))
    daemon.send(number)
    ended = await daemon.end()
    assert (ended.code, ended.out) == (0, "")
    assert [entry["event"] for entry in daemon.logged][-1] == "stopped"


@both_signals
async def test_a_daemon_that_is_told_to_end_finishes_the_batch_in_hand(  # noqa: PLR0913, PLR0917 - fixtures
    prepared: CommandLine,
    event: Event,
    publish: Publish,
    query: Query,
    eventually: Eventually,
    database_url: str,
    number: signal.Signals,
) -> None:
    daemon = await prepared.start("run")
    await daemon.logs("caught up")
    async with locked(database_url):
        await publish(event("connectivity.connected", "e"))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        await eventually(lambda: query(database_url, waiting))
        daemon.send(number)
    assert (await daemon.end()).code == 0
    assert await query(database_url, ENDPOINTS) == [("e",)]
    assert await query(database_url, "SELECT position FROM projector_checkpoint") == [(1,)]


async def test_a_daemon_without_anything_to_do_ends_at_the_end_of_the_stream(prepared: CommandLine) -> None:
    assert await prepared.succeeds("run", "--until-caught-up") == ""


@pytest.fixture
async def backlog(prepared: CommandLine, event: Event, publish: Publish) -> int:
    """A few thousand messages of every kind, some of which cannot be folded; returns the last position."""
    await prepared.succeeds("simulate", "--endpoints", "300", "--events", "2000", "--rate", "0")
    lines = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]
    messages = [(line["subject"], bytes.fromhex(line["payload_hex"])) for line in lines]
    messages[::97] = [(messages[0][0], b"\xff")] * len(messages[::97])
    messages[50::200] = [("kaa.v1.events.kpc.endpoint.no.such", b"")] * len(messages[50::200])
    messages[60::300] = [event("connectivity.disconnected", endpointIds=["e1", ""])] * len(messages[60::300])
    return await publish(*messages)


async def everything(query: Query, url: str) -> list[list[tuple[Any, ...]]]:
    """All that a database says of the stream; when something was written is its own."""
    return [
        await query(url, "SELECT * FROM endpoint_state ORDER BY endpoint_id"),
        await query(
            url,
            "SELECT position, subject, headers, payload, stored_at, reason, detail, state, attempts "
            "FROM dead_letter ORDER BY position",
        ),
        await query(url, "SELECT position, anchor_stored_at, anchor_hash, skipped FROM projector_checkpoint"),
    ]


async def test_a_daemon_that_is_killed_again_and_again_comes_to_the_table_of_an_undisturbed_one(  # noqa: PLR0913, PLR0917
    prepared: CommandLine,
    backlog: int,
    query: Query,
    eventually: Eventually,
    database_url: str,
    other_database_url: str,
) -> None:
    undisturbed = prepared("run", "--until-caught-up", "--consumer", "other", "--database-url", other_database_url)

    async def has_passed(target: int) -> bool:
        return await query(database_url, "SELECT 1 FROM projector_checkpoint WHERE position >= $1", target) != []

    async def be_killed_at_random() -> None:
        random = Random(20_261_124)  # noqa: S311 - repeatable is the point
        for target in sorted(random.randrange(1, backlog) for _ in range(4)):
            daemon: Running = await prepared.start("run", "--batch-size", "31")
            await eventually(lambda target=target: has_passed(target), patience_s=60)
            assert (await daemon.kill()).code == -signal.SIGKILL
        await prepared.succeeds("run", "--until-caught-up", "--batch-size", "31")

    reference, _ = await asyncio.gather(undisturbed, be_killed_at_random())
    assert reference.code == 0
    expected = await everything(query, other_database_url)
    table, dead_letters, ((position, _, _, skipped),) = expected
    assert (len(table), len(dead_letters), position, skipped) == (340, 28, backlog, '{"no.such": 10}')
    assert await everything(query, database_url) == expected
