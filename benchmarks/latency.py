"""How long an event takes until a reader of Postgres can see what it changed, and until the change is published."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from threading import Event
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import asyncpg
import nats
import nats.errors
import uvloop

from benchmarks.backlog import STREAM, Backlog, encoded
from benchmarks.process import Program, ProgramError, Sample
from benchmarks.workloads import Wire
from projector import resources
from projector.dev.fleet import SimulatedEvent
from projector.stream.codec import Codec

_CATCH_UP_S = 600
_SETTLE_S = 2
"""The events of the first seconds are not counted: connections, plans and caches are still cold."""

_POLL_S = 0.0005
"""Between two looks at the checkpoint; figures are too high by up to this and the time of a query."""


Watch: TypeAlias = Callable[[Any, Any, int, int], Awaitable[dict[int, float]]]
"""Takes connections to Postgres and NATS, and two positions; returns when what is between them could be seen."""


class Pace(NamedTuple):
    """How fast to publish, and for how long."""

    rate: int
    """Events per second."""
    seconds: int


_PREFIX = "bench"
_IDLE_S = 3
"""This long after a change, no further one is expected."""


def measure_latency(
    backlog: Backlog,
    database_url: str,
    life: Iterable[SimulatedEvent | Wire],
    pace: Pace,
    *,
    published: bool = False,
) -> Sample:
    """Let the daemon catch up, publish at a rate, and time every event.

    With `published`, the daemon publishes changes, and an event is timed until its last one arrives at a subscriber.

    Raises:
        ProgramError: the daemon did not catch up, or what was published did not become visible.
    """
    caught_up = Event()
    publishing = {"PROJECTOR_CHANGES": "7d", "PROJECTOR_PUBLISH": _PREFIX} if published else {}
    settings = {**backlog.settings(database_url), **publishing}
    if published:
        with Program("projector", "init", env=settings) as program:
            program.wait()
    daemon = Program(
        "projector",
        "run",
        env=settings,
        on_event=lambda event, _: caught_up.set() if event == "caught up" else None,
    )
    with daemon:
        if not caught_up.wait(_CATCH_UP_S):
            raise ProgramError(f"the daemon did not catch up in {_CATCH_UP_S} s")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            watch = _listen if published else _watch
            waits = runner.run(_publish_and_watch(backlog, database_url, life, watch, pace))
    settled = sorted(waits[pace.rate * _SETTLE_S :])
    return {
        "p50_ms": _percentile(settled, 0.5),
        "p99_ms": _percentile(settled, 0.99),
        "max_ms": settled[-1],
        "peak_mb": daemon.peak_mb,
    }


async def _publish_and_watch(
    backlog: Backlog,
    database_url: str,
    life: Iterable[SimulatedEvent | Wire],
    watch: Watch,
    pace: Pace,
) -> list[float]:
    """Return the ms that each event took, in the order of the stream; without those that changed nothing."""
    codec = Codec("kaa-2017-04", resources.folder("schemas"))
    rate, seconds = pace
    wire = [encoded(codec, event) for event in islice(life, rate * (seconds + _SETTLE_S))]
    client = await nats.connect(backlog.nats.url)
    connection = await asyncpg.connect(database_url)
    try:
        jetstream = client.jetstream(publish_async_max_pending=len(wire))
        begin = (await jetstream.stream_info(STREAM)).state.last_seq
        watching = asyncio.ensure_future(watch(connection, client, begin, begin + len(wire)))
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
        1000 * (visible[acknowledgement.seq] - moment)
        for acknowledgement, moment in zip(acknowledgements, sent, strict=True)
        if acknowledgement.seq in visible
    ]


async def _watch(connection: Any, _: Any, begin: int, end: int) -> dict[int, float]:
    """Return when each position after `begin` became visible: rows and checkpoint do so together."""
    position = await connection.prepare("SELECT position FROM projector_checkpoint")
    visible: dict[int, float] = {}
    reached = begin
    while reached < end:
        now_at = min(await position.fetchval(), end)
        visible |= dict.fromkeys(range(reached + 1, now_at + 1), perf_counter())
        reached = now_at
        await asyncio.sleep(_POLL_S)
    return visible


async def _listen(_: Any, client: Any, begin: int, end: int) -> dict[int, float]:
    """Return when the last change of each position after `begin` arrived; late events have none."""
    arrived: dict[int, float] = {}
    subscription = await client.subscribe(f"{_PREFIX}.>", pending_msgs_limit=-1, pending_bytes_limit=-1)
    received: list[tuple[float, bytes]] = []
    with contextlib.suppress(nats.errors.TimeoutError):
        while True:
            message = await subscription.next_msg(timeout=_IDLE_S)
            received.append((perf_counter(), message.data))
    for moment, payload in received:
        position = json.loads(payload)["position"]
        if begin < position <= end:
            arrived[position] = moment
    return arrived


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
