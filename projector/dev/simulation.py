"""Publishes the events of a simulated fleet at a given rate."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from projector.composition import Composition
from projector.dev.fleet import Fleet
from projector.settings import Settings
from projector.stream.publisher import Publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A simulated fleet, how many of its events to publish, and how fast."""

    endpoints: int
    seed: int
    events: int | None = None
    """None: no limit."""
    rate: float = 0
    """Events per second; 0: no limit."""
    skip: int = 0
    """Number of events of this fleet that were published before."""


async def simulate(settings: Settings, simulation: Simulation, stop: asyncio.Event) -> int:
    """Publish a fleet's events until `stop` is set or their number is reached; return how many were published.

    Raises:
        BrokerUnavailableError: NATS cannot be reached.
        BrokerRefusedError: NATS rejects the connection, or an event.
    """
    publisher = Composition(settings).publisher()
    await publisher.open()
    try:
        return await _publish_life(simulation, settings.revision, publisher, stop)
    finally:
        await publisher.close()


async def _publish_life(simulation: Simulation, revision: str, publisher: Publisher, stop: asyncio.Event) -> int:
    published = 0
    began = time.monotonic()
    interval_ms = 1000 / simulation.rate if simulation.rate else 0
    fleet = Fleet(
        endpoints=simulation.endpoints,
        seed=simulation.seed,
        start_at=int(time.time() * 1000 - simulation.skip * interval_ms),
        interval_ms=interval_ms,
        revision=revision,
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
