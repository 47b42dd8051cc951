"""Stamps, and the one rule by which a newer event replaces an older one."""

from typing import Generic, NamedTuple, TypeVar

from projector.domain.trimmed import Trimmed

T = TypeVar("T")


class Stamp(NamedTuple):
    """Where an event came from, and when it happened.

    A named tuple, as are the states of all facets, because one is made for every message:
    it costs a third of a frozen data class to make, and to read or write as JSON.
    """

    position: int
    """Stream sequence of the message."""
    occurred_at: int
    """Unix ms, see `occurred_at`."""
    originator: str
    """Name of the originating service instance."""
    replica: str | None
    """Replica id of that instance; None if it is unknown."""


class Register(NamedTuple, Generic[T]):
    """A value and the stamp of the event that set it."""

    value: T
    stamp: Stamp


def occurred_at(timestamp: int, stored_at: int) -> int:
    """Return the Unix ms at which an event counts as having happened.

    It is the event's own timestamp, but never later than the time at which the broker stored the message:
    a fast clock must not freeze a value.
    A timestamp of 0 or less is replaced by the stored time.
    """
    return timestamp if 0 < timestamp < stored_at else stored_at


def supersedes(new: Stamp, held: Stamp | None) -> bool:
    """Return whether an event stamped `new` replaces one stamped `held`.

    Messages of one replica are stored in the order in which it sent them, regardless of its clock.
    Between replicas the time decides, and the position if the times are equal.
    """
    if held is None:
        return True
    if new.replica is not None and new.replica == held.replica and new.originator == held.originator:
        return new.position > held.position
    return (new.occurred_at, new.position) > (held.occurred_at, held.position)


def time_of(held: Stamp | None) -> int | None:
    """Return the Unix ms of a stamp; None if there is none."""
    return None if held is None else held.occurred_at


def from_other_replica(one: Stamp, other: Stamp) -> bool:
    """Return whether two stamps are known to come from different replicas."""
    return (
        one.replica is not None
        and other.replica is not None
        and (one.replica != other.replica or one.originator != other.originator)
    )


def kept(held: Stamp | None, trimmed: Trimmed) -> Stamp | None:
    """Return a stamp if its message has left the stream, else None."""
    return held if held is not None and held.position in trimmed else None


def register_kept(held: Register[T] | None, trimmed: Trimmed) -> Register[T] | None:
    """Return a register if the message that set it has left the stream, else None."""
    return held if held is not None and held.stamp.position in trimmed else None


def surviving(held: Stamp | None, end: Stamp) -> Stamp | None:
    """Return a stamp, or None if the end of a life supersedes it."""
    return None if held is None or supersedes(end, held) else held


def register_surviving(held: Register[T] | None, end: Stamp) -> Register[T] | None:
    """Return a register, or None if the end of a life supersedes it."""
    return None if held is None or supersedes(end, held.stamp) else held


def take(held: Register[T] | None, value: T, stamp: Stamp) -> Register[T] | None:
    """Return the register after an attempt to set it: a new one, or the one held."""
    if held is not None and not supersedes(stamp, held.stamp):
        return held
    return Register(value, stamp)
