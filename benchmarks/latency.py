"""How long an event takes from its publication until a reader of Postgres can see what it changed."""

import asyncio
import contextlib
from collections.abc import Iterable
from itertools import islice
from threading import Event
from time import perf_counter
from typing import Any

import asyncpg
import nats
import uvloop

from benchmarks.backlog import STREAM, Backlog, encoded
from benchmarks.process import Program, ProgramError, Sample
from benchmarks.workloads import Wire
from projector import resources
from projector.dev.fleet import SimulatedEvent
from projector.stream.codec import Codec

_CATCH_UP_S = 600
_SETTLE_S = 2
"""The first events are published and forgotten: connections, plans and caches are new to them."""

_POLL_S = 0.0005
"""Between two looks at the checkpoint; figures are up to that and a query too high."""


def measure_latency(
    backlog: Backlog, database_url: str, life: Iterable[SimulatedEvent | Wire], *, rate: int, seconds: int
) -> Sample:
    """Let the daemon catch up, publish at a rate, and time every event.

    Raises:
        ProgramError: the daemon did not catch up, or what was published did not become visible.
    """
    caught_up = Event()
    daemon = Program(
        "projector",
        "run",
        env=backlog.settings(database_url),
        on_event=lambda event, _: caught_up.set() if event == "caught up" else None,
    )
    with daemon:
        if not caught_up.wait(_CATCH_UP_S):
            raise ProgramError(f"the daemon did not catch up in {_CATCH_UP_S} s")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            waits = runner.run(_publish_and_watch(backlog, database_url, life, rate=rate, seconds=seconds))
    settled = sorted(waits[rate * _SETTLE_S :])
    return {
        "p50_ms": _percentile(settled, 0.5),
        "p99_ms": _percentile(settled, 0.99),
        "max_ms": settled[-1],
        "peak_mb": daemon.peak_mb,
    }


async def _publish_and_watch(
    backlog: Backlog, database_url: str, life: Iterable[SimulatedEvent | Wire], *, rate: int, seconds: int
) -> list[float]:
    """Return the ms that each event took, in the order of the stream."""
    codec = Codec("kaa-2017-04", resources.folder("schemas"))
    wire = [encoded(codec, event) for event in islice(life, rate * (seconds + _SETTLE_S))]
    client = await nats.connect(backlog.nats.url)
    connection = await asyncpg.connect(database_url)
    try:
        jetstream = client.jetstream(publish_async_max_pending=len(wire))
        begin = (await jetstream.stream_info(STREAM)).state.last_seq
        watching = asyncio.create_task(_watch(connection, begin, begin + len(wire)))
        began = perf_counter()
        sent: list[float] = []
        stored: list[Any] = []
        for number, (subject, payload) in enumerate(wire):
            ahead_s = began + number / rate - perf_counter()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            sent.append(perf_counter())
            stored.append(await jetstream.publish_async(subject, payload))
        acknowledgements = await asyncio.gather(*stored)
        visible = await asyncio.wait_for(watching, seconds)
    except TimeoutError as error:
        raise ProgramError(f"after {seconds} s, not everything that was published is visible") from error
    finally:
        await client.close()
        with contextlib.suppress(OSError):
            await connection.close()
    return [
        1000 * (visible[acknowledgement.seq - begin - 1] - moment)
        for acknowledgement, moment in zip(acknowledgements, sent, strict=True)
    ]


async def _watch(connection: Any, begin: int, end: int) -> list[float]:
    """Return when each position after `begin` became visible: rows and checkpoint do so together."""
    position = await connection.prepare("SELECT position FROM projector_checkpoint")
    visible: list[float] = []
    reached = begin
    while reached < end:
        now_at = min(await position.fetchval(), end)
        visible += [perf_counter()] * (now_at - reached)
        reached = now_at
        await asyncio.sleep(_POLL_S)
    return visible


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
