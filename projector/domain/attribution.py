"""Which event set a value."""

from bisect import insort
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from projector.domain.stamps import Register, Stamp, supersedes

Shown: TypeAlias = Mapping[str, Any]
"""The visible columns of a row by name; times are in Unix ms, and the names of their columns end in `_at`."""


class Cause(NamedTuple):
    """The event that set a value, as its register tells."""

    stamp: Stamp
    kinds: tuple[type[Any], ...]
    """Types of event that can set this register: one of them did."""


def caused(held: Stamp | Register[Any] | None, *kinds: type[Any]) -> Cause | None:
    """Return the cause of a value; None if no event has set it."""
    if held is None:
        return None
    return Cause(held.stamp if isinstance(held, Register) else held, kinds)


class Part(NamedTuple):
    """A value within a column that has an event of its own."""

    present: bool
    """False: it was removed."""
    value: Any
    """A JSON text; None for null."""
    cause: Cause


class Trail:
    """Events that were applied to facets, to find those behind the values that a row once had.

    An event that is not among them is known by its time alone: its stamp has position 0 and no originator.
    """

    def __init__(self) -> None:
        """Begin without events."""
        self._by_time: dict[tuple[str, int], list[Cause]] = defaultdict(list)
        self._by_kind: dict[tuple[str, type[Any]], list[Stamp]] = defaultdict(list)
        """The events that are certainly of a type, in stream order."""
        self.missed: set[int] = set()
        """Times (Unix ms) at which no event was found."""

    def add(self, facet: str, cause: Cause | None) -> None:
        """Add an event that was applied to a facet."""
        if cause is not None:
            self._by_time[facet, cause.stamp.occurred_at].append(cause)
            if len(cause.kinds) == 1:
                insort(self._by_kind[facet, cause.kinds[0]], cause.stamp, key=_position)

    def seen_from(self, facet: str, position: int) -> "Past":
        """Return the events of a facet up to a position."""
        return Past(self, facet, position)

    def at(self, facet: str, position: int, occurred_at: int, kinds: tuple[type[Any], ...]) -> Stamp:
        """Return the stamp of the event of a facet, up to a position, that happened at a time."""
        found = [
            stamp
            for stamp, its_kinds in self._by_time.get((facet, occurred_at), ())
            if stamp.position <= position and not set(kinds).isdisjoint(its_kinds)
        ]
        if found:
            return max(found, key=_position)
        self.missed.add(occurred_at)
        return Stamp(0, occurred_at, "", None)

    def newest(self, facet: str, position: int, kind: type[Any]) -> Stamp | None:
        """Return the stamp of the event of a facet, up to a position, that superseded all others of its type."""
        held: Stamp | None = None
        for stamp in self._by_kind.get((facet, kind), ()):
            if stamp.position <= position and supersedes(stamp, held):
                held = stamp
        return held


class Past(NamedTuple):
    """The events that were applied to one facet of an endpoint, up to a position."""

    trail: Trail
    facet: str
    position: int

    def at(self, occurred_at: int | None, *kinds: type[Any]) -> Stamp | None:
        """Return the stamp of the event of one of some types that happened at a time; None if the time is None."""
        return None if occurred_at is None else self.trail.at(self.facet, self.position, occurred_at, kinds)

    def newest(self, kind: type[Any]) -> Stamp | None:
        """Return the stamp of the event of a type that superseded all others; None if none is known."""
        return self.trail.newest(self.facet, self.position, kind)


def _position(stamp: Stamp) -> int:
    return stamp.position
