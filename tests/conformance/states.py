"""Endpoints, dead letters and checkpoints to store."""

from typing import Any

from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.endpoint import FACETS, Change, Endpoint, FacetSet, fold
from projector.domain.events import ConfigAvailable, Connected, Event
from projector.domain.messages import DeadLetter, Message
from projector.domain.rules import Rules
from projector.domain.stamps import Stamp
from tests.conformance.databases import STREAM

T = 1_700_000_000_000
EVERY_FACET: FacetSet = (1 << len(FACETS)) - 1
RULES = Rules(version=1, revision="kaa-2017-04", originators=())
START = Checkpoint(stream=STREAM, stream_created_at=T, rules=RULES)


def checkpoint(position: int, *, generation: int = 0) -> Checkpoint:
    return Checkpoint(
        stream=STREAM,
        stream_created_at=T,
        rules=RULES,
        position=position,
        anchor=Anchor(stored_at=T + position, payload_hash=bytes(32)),
        skipped={"future.thing": position},
        generation=generation,
    )


def stamp(position: int) -> Stamp:
    return Stamp(position, T + position, "kpc", "kpc-0")


def connected(position: int, *, version: str = "v1") -> Event:
    return Connected(stamp(position), ("e",), version)


def announced(position: int) -> Event:
    return ConfigAvailable(stamp(position), ("e",), f"c{position}")


def after(*events: Event, on: Endpoint | None = None) -> Endpoint:
    """Return a working copy after some events, by default of an unseen endpoint."""
    endpoint = on or Endpoint.unseen()
    fold(events, {"e": endpoint})
    return endpoint


def logged(event: Event) -> tuple[list[Change], dict[int, Message]]:
    """Return the changes of an event to an unseen endpoint, and its message, as `UnitOfWork.log` takes them."""
    changes: list[Change] = []
    fold([event], {"e": Endpoint.unseen()}, changes)
    position = event.stamp.position
    return changes, {position: Message(position, T + position, "kaa.v1.events.kpc.endpoint.x", b"")}


def facts(endpoint: Endpoint) -> tuple[Any, ...]:
    """Return all stored values of an endpoint."""
    return (*endpoint.states, endpoint.last_event_seq, endpoint.last_event_at)


def letter(position: int, *, stored_at: int | None = None, detail: str = "bad") -> DeadLetter:
    message = Message(position, T + position if stored_at is None else stored_at, "kaa.x", b"\xff", {"a": "b"})
    return DeadLetter(message, "malformed-payload", detail)
