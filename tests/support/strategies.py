"""Stamps, given-when-then for one facet, and random histories of a small fleet."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import product
from typing import Any, TypeVar

from hypothesis import strategies as st

from projector.domain.endpoint import Endpoint, fold
from projector.domain.events import (
    AppVersionUpdated,
    ConfigApplied,
    ConfigAvailable,
    ConfigFailed,
    Connected,
    Disconnected,
    Event,
    MetadataUpdated,
    Registered,
    Unregistered,
)
from projector.domain.facets import LATE, Facet, Rejection, State, Verdict
from projector.domain.stamps import Stamp, supersedes
from tests.support.fixtures import Rows

S = TypeVar("S", bound=State)

ENDPOINTS = ("e1", "e2", "e3")


def stamp(position: int, at: int, replica: str | None = "x", originator: str = "kpc") -> Stamp:
    return Stamp(position, at, originator, replica)


def given_events(facet: Facet[S], *events: Event) -> S:
    """Return the state of a facet after these events."""
    state = facet.initial
    for event in events:
        state, _ = when(facet, state, event)
    return state


def when(facet: Facet[S], state: S, event: Event) -> tuple[S, Verdict]:
    """Return the state after one more event, and its verdict.

    The event comes twice: its immediate redelivery must change nothing.
    """
    outcome = _reduce(facet, state, event)
    after, verdict = (state, outcome) if isinstance(outcome, Verdict) else (outcome, Verdict.APPLIED)
    assert isinstance(_reduce(facet, after, event), Verdict), f"redelivered {event} was taken again"
    return after, verdict


def _reduce(facet: Facet[S], state: S, event: Event) -> S | Rejection:
    """Apply an event to one facet, as `fold` does for all facets."""
    outcome = facet.reducers[type(event)](state, event)
    if outcome is state:  # the event says nothing about the facet
        return LATE
    return outcome if supersedes(event.stamp, state.unregistered) else LATE


def folded(*histories: Iterable[Event]) -> dict[str, Endpoint]:
    """Return the endpoints after these histories, one after the other."""
    endpoints: dict[str, Endpoint] = defaultdict(Endpoint.unseen)
    for events in histories:
        fold(events, endpoints)
    return dict(endpoints)


def snapshot(endpoints: dict[str, Endpoint]) -> dict[str, tuple[Any, ...]]:
    """Return everything of the endpoints that a row derives from."""
    return {
        endpoint_id: (*endpoint.states, endpoint.last_event_seq, endpoint.last_event_at)
        for endpoint_id, endpoint in endpoints.items()
    }


_ORIGINS = [("kpc", "x"), ("kpc", "y"), ("epr", "x")]
_UNKNOWN = [("kpc", None)]
_NAMES = ["", "v1", "v2"]
_CONFIGS = ["c1", "c2", ""]
_METADATA: Rows = [
    ({}, ()),
    ({"a": None}, ()),
    ({"a": "1", "b": None}, ("c",)),
    ({"b": '"text"'}, ("a",)),
    ({"c": None}, ("a", "b")),
    ({}, ("a", "b", "c")),
]

_subsets = st.sampled_from([("e1",), ("e2",), ("e1", "e2"), ("e3", "e1"), ("e2", "e3", "e1")])
_facts: st.SearchStrategy[tuple[type[Any], tuple[Any, ...]]] = st.sampled_from(
    [
        *((Connected, (name,)) for name in _NAMES),
        *[(Disconnected, ())] * len(_NAMES),  # as often as connects
        *((Registered, (name,)) for name in _NAMES),
        *[(Unregistered, ())] * len(_NAMES),
        *((AppVersionUpdated, names) for names in product(_NAMES, _NAMES[:2])),
        *((MetadataUpdated, keys) for keys in _METADATA),
        *((ConfigAvailable, (config,)) for config in _CONFIGS),
        *((ConfigApplied, (config,)) for config in _CONFIGS),
        *((ConfigFailed, (config, 500, None)) for config in _CONFIGS),
    ]
)


def stamps(*, monotone: bool, unknown_replicas: bool = True) -> st.SearchStrategy[list[Stamp]]:
    """Return the stamps of a stream from its first position on, at so few different times that they often collide.

    Monotone: the clock of a known replica never steps back.
    """
    origins = st.sampled_from([*_ORIGINS, *(_UNKNOWN if unknown_replicas else [])])

    def number(sent: list[tuple[tuple[str, str | None], int]]) -> list[Stamp]:
        clocks: dict[tuple[str, str], int] = defaultdict(int)
        found = []
        for position, ((originator, replica), time) in enumerate(sent, start=1):
            at = time
            if monotone and replica is not None:
                at = clocks[originator, replica] = max(time, clocks[originator, replica])
            found.append(Stamp(position, at, originator, replica))
        return found

    return st.lists(st.tuples(origins, st.integers(1, 20)), min_size=1, max_size=10).map(number)


def histories(*, monotone: bool = False, unknown_replicas: bool = True) -> st.SearchStrategy[list[Event]]:
    """Return streams of events of a small fleet, in stream order."""

    def tell(found: list[Stamp], facts: Rows) -> list[Event]:
        return [kind(at, ids, *fact) for at, ((kind, fact), ids) in zip(found, facts, strict=False)]

    return st.builds(
        tell,
        stamps(monotone=monotone, unknown_replicas=unknown_replicas),
        st.lists(st.tuples(_facts, _subsets), min_size=10, max_size=10),
    )
