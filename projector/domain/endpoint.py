"""The endpoint: its facets together, and the fold of events over endpoints."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from projector.domain import application, configuration, connectivity, metadata, registration
from projector.domain.events import Event
from projector.domain.facets import FENCED, LATE, Facet, Verdict
from projector.domain.stamps import Stamp, supersedes
from projector.domain.trimmed import Trimmed

FACETS: tuple[Facet[Any], ...] = (
    connectivity.FACET,
    application.FACET,
    registration.FACET,
    metadata.FACET,
    configuration.FACET,
)
"""Every facet; its index here is its index in `Endpoint.states` and its bit in a facet set."""

FacetSet: TypeAlias = int
"""A set of facets, bit n standing for `FACETS[n]`."""

EVENT_TYPES: frozenset[type[Any]] = frozenset(kind for facet in FACETS for kind in facet.reducers)

TOUCHED_FACETS: Mapping[type[Any], FacetSet] = {
    kind: sum(1 << index for index, facet in enumerate(FACETS) if kind in facet.reducers) for kind in EVENT_TYPES
}
"""The facets that an event of a type may change."""

_REDUCERS = {
    kind: tuple(
        (index, 1 << index, facet.reducers[kind]) for index, facet in enumerate(FACETS) if kind in facet.reducers
    )
    for kind in EVENT_TYPES
}


class Endpoint:
    """The working copy of one endpoint while a batch is folded: the only mutable thing in the domain."""

    __slots__ = ("changed", "last_event_at", "last_event_seq", "states")

    def __init__(self, states: list[Any], last_event_seq: int = 0, last_event_at: int = 0) -> None:
        """Begin with these states, one for each of `FACETS`; a facet that no event will touch may be None."""
        self.states = states
        self.changed: FacetSet = 0
        self.last_event_seq = last_event_seq
        self.last_event_at = last_event_at

    def copy(self) -> "Endpoint":
        """Return a working copy to fold on."""
        return Endpoint(self.states.copy(), self.last_event_seq, self.last_event_at)

    @property
    def registers(self) -> int:
        """How many registers its known states have; see `Facet.registers`."""
        return sum(
            facet.registers(state) for facet, state in zip(FACETS, self.states, strict=True) if state is not None
        )

    def lacking(self, facets: FacetSet) -> FacetSet:
        """Return those of some facets whose state is not known."""
        return sum(1 << index for index, state in enumerate(self.states) if state is None and facets >> index & 1)

    def complete(self, other: "Endpoint") -> None:
        """Take the states that are not known from another working copy."""
        self.states = [theirs if ours is None else ours for ours, theirs in zip(self.states, other.states, strict=True)]

    def kept(self, trimmed: Trimmed) -> "Endpoint | None":
        """Return what the stream can no longer say, all of it marked as changed; None if that is nothing.

        Every state has to be known. A value that was overwritten by a message that the stream holds is lost.
        """
        states = [facet.kept(state, trimmed) for facet, state in zip(FACETS, self.states, strict=True)]
        changed = sum(1 << index for index, facet in enumerate(FACETS) if states[index] != facet.initial)
        if not changed:
            return None
        endpoint = Endpoint(states, self.last_event_seq, self.last_event_at)
        if self.last_event_seq not in trimmed:
            latest = max(_stamps(states), key=lambda stamp: stamp.position)
            endpoint.last_event_seq, endpoint.last_event_at = latest.position, latest.occurred_at
        endpoint.changed = changed
        return endpoint

    @classmethod
    def unseen(cls) -> "Endpoint":
        """Return an endpoint that no event has named yet."""
        return cls([facet.initial for facet in FACETS])


def missing(needed: Mapping[str, FacetSet], known: Mapping[str, Endpoint]) -> dict[str, FacetSet]:
    """Return the endpoints, and the facets of each, that are needed and not known."""
    found: dict[str, FacetSet] = {}
    for endpoint_id, facets in needed.items():
        endpoint = known.get(endpoint_id)
        if endpoint is None:
            found[endpoint_id] = facets
        elif None in endpoint.states and (lacking := endpoint.lacking(facets)):
            found[endpoint_id] = lacking
    return found


def completed(
    needed: Iterable[str], known: Mapping[str, Endpoint], loaded: Mapping[str, Endpoint]
) -> dict[str, Endpoint]:
    """Return working copies of the known endpoints, with what was missing from them, and the loaded ones."""
    endpoints: dict[str, Endpoint] = {}
    for endpoint_id in needed:
        endpoint = known.get(endpoint_id)
        if endpoint is None:
            endpoints[endpoint_id] = loaded[endpoint_id]
            continue
        endpoints[endpoint_id] = copy = endpoint.copy()
        if endpoint_id in loaded:
            copy.complete(loaded[endpoint_id])
    return endpoints


def _stamps(value: object) -> Iterator[Stamp]:
    """Yield every stamp in states, at any depth."""
    if isinstance(value, Stamp):
        yield value
    elif isinstance(value, Mapping):
        yield from _stamps(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _stamps(part)


class Change(NamedTuple):
    """What an event did to one facet of an endpoint that it names."""

    event: Event
    endpoint_id: str
    facet: int
    """Its index in `FACETS`."""
    verdict: Verdict
    before: Any
    after: Any
    """The state of the facet; the one before if the event was rejected."""
    previous_seq: int
    """Position of the latest event that had named the endpoint before; 0 if there was none, so that its row is new."""
    previous_at: int
    """Unix ms of that event."""


def fold(
    events: Iterable[Event], endpoints: Mapping[str, Endpoint], changes: list[Change] | None = None
) -> Counter[tuple[type[Any], Verdict]]:
    """Fold events, in stream order, over the endpoints they name; return how many of each type came to each verdict.

    An event is applied if it changed anything of any endpoint it names.
    What each event did to each facet that it says something about is added to `changes`.
    """
    verdicts: Counter[tuple[type[Any], Verdict]] = Counter()
    for event in events:
        kind = type(event)
        reducers = _REDUCERS[kind]
        stamp = event.stamp
        verdict: Verdict = LATE
        for endpoint_id in event.endpoint_ids:
            endpoint = endpoints[endpoint_id]
            previous_seq, previous_at = endpoint.last_event_seq, endpoint.last_event_at
            if stamp.position > previous_seq:
                endpoint.last_event_seq = stamp.position
                endpoint.last_event_at = stamp.occurred_at
            for index, bit, reduce in reducers:
                before = endpoint.states[index]
                after = reduce(before, event)
                if after is before:
                    continue
                if before.unregistered is not None and not supersedes(stamp, before.unregistered):
                    after = LATE  # the life that the event belongs to is over
                came_to: Verdict
                if after is LATE or after is FENCED:
                    came_to = after
                    after = before
                    if came_to is FENCED and verdict is LATE:
                        verdict = FENCED
                else:
                    endpoint.states[index] = after
                    endpoint.changed |= bit
                    came_to = verdict = Verdict.APPLIED
                if changes is not None:
                    changes.append(Change(event, endpoint_id, index, came_to, before, after, previous_seq, previous_at))
        verdicts[kind, verdict] += 1
    return verdicts
