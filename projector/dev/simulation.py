"""Publishing the life of a simulated fleet at a pace."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from projector.dev.fleet import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A simulated fleet, and how much of its life to publish at what pace."""

    endpoints: int
    seed: int
    events: int | None = None
    """None: until told to stop."""
    rate: float = 0
    """Events per second; 0: as fast as it goes."""
    skip: int = 0
    """Events of this life that were published before."""


class Publisher(Protocol):
    """Takes events to the stream; implemented by `stream.publisher.Publisher`."""

    async def publish(self, originator: str, event_type: str, record: dict[str, Any]) -> None:
        """Publish an event."""
        ...

    async def flush(self) -> None:
        """Wait until what was published is stored."""
        ...


async def publish_life(simulation: Simulation, publisher: Publisher, stop: asyncio.Event) -> int:
    """Publish a fleet's life until told to stop, or as many events as the simulation has; return how many."""
    published = 0
    began = time.monotonic()
    interval_ms = 1000 / simulation.rate if simulation.rate else 0
    fleet = Fleet(
        endpoints=simulation.endpoints,
        seed=simulation.seed,
        start_at=int(time.time() * 1000 - simulation.skip * interval_ms),
        interval_ms=interval_ms,
    )
    for event in fleet.events(skip=simulation.skip):
        if stop.is_set() or published == simulation.events:
            break
        if simulation.rate:
            ahead_s = published / simulation.rate - (time.monotonic() - began)
            if ahead_s > 0:
                await publisher.flush()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), ahead_s)
        await publisher.publish(event.originator, event.event_type, event.record)
        published += 1
    await publisher.flush()
    return published
