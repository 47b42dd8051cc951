"""Which event set a value, and how to name an event in a sentence."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from projector.domain.moments import time_text
from projector.domain.stamps import Register, Stamp, supersedes

Shown: TypeAlias = Mapping[str, Any]
"""The visible columns of a row by name; times are in Unix ms, and the names of their columns end in `_at`."""


class Cause(NamedTuple):
    """The event that set a value, as its register tells."""

    stamp: Stamp
    kinds: tuple[type[Any], ...]
    """Types of event that set this register: one of them did."""


def caused(held: Stamp | Register[Any] | None, *kinds: type[Any]) -> Cause | None:
    """Return the cause of a value; None if no event has set it."""
    if held is None:
        return None
    return Cause(held.stamp if isinstance(held, Register) else held, kinds)


class Trail:
    """Events that were applied to a facet, to find those behind the values that a row had once.

    An event that is not among them is known by its time alone: its stamp has position 0 and no originator.
    """

    def __init__(self) -> None:
        """Begin without events."""
        self._events: dict[str, list[Cause]] = defaultdict(list)
        self.missed: set[int] = set()
        """Times (Unix ms) for which `at` found no event."""

    def add(self, facet: str, cause: Cause | None) -> None:
        """Add an event that was applied to a facet."""
        if cause is not None:
            self._events[facet].append(cause)

    def seen_from(self, facet: str, position: int) -> "Past":
        """Return the events of a facet as a row shows them whose latest event has a position."""
        return Past(self._events[facet], position, self.missed)


class Past(NamedTuple):
    """The events that were applied to one facet of an endpoint before some position."""

    events: list[Cause]
    position: int
    missed: set[int]

    def at(self, occurred_at: int | None, *kinds: type[Any]) -> Stamp | None:
        """Return the stamp of the event of one of some types that happened at a time; None if the time is None."""
        if occurred_at is None:
            return None
        found = _latest(
            one.stamp
            for one in self._before()
            if one.stamp.occurred_at == occurred_at and not set(kinds).isdisjoint(one.kinds)
        )
        if found is None:
            self.missed.add(occurred_at)
            return Stamp(0, occurred_at, "", None)
        return found

    def latest(self, *kinds: type[Any]) -> Stamp | None:
        """Return the stamp of the latest event that is certainly of one of some types, as far as it is known."""
        return _latest(one.stamp for one in self._before() if set(kinds) >= set(one.kinds))

    def _before(self) -> Iterator[Cause]:
        return (one for one in self.events if one.stamp.position <= self.position)


def _latest(stamps: Iterable[Stamp]) -> Stamp | None:
    return max(stamps, default=None, key=lambda stamp: stamp.position)


def sender(stamp: Stamp) -> str:
    """Return the name of the replica that an event came from."""
    return f"{stamp.originator}/{stamp.replica}" if stamp.replica else f"{stamp.originator} (replica unknown)"


def when(stamp: Stamp) -> str:
    """Return when an event happened, and its position, as far as is known."""
    return f"{time_text(stamp.occurred_at)}" + (f" (position {stamp.position})" if stamp.position else "")


def told(stamp: Stamp) -> str:
    """Return where and when an event came from, as far as is known."""
    return f"from {sender(stamp)} at {when(stamp)}" if stamp.originator else f"at {when(stamp)}"


def newer(sentence: str, held: Stamp | Register[Any] | None, stamp: Stamp) -> str | None:
    """Return a sentence with the event that is held for `{}`; None if another one with this stamp supersedes it."""
    held = held.stamp if isinstance(held, Register) else held
    return None if held is None or supersedes(stamp, held) else sentence.format(told(held))
