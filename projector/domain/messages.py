"""A message as the stream holds it, before anybody has looked inside."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from projector.errors import PoisonReason


class Message(NamedTuple):
    """One stored message."""

    position: int
    """Stream sequence, from 1."""
    stored_at: int
    """Unix ms at which the broker stored it."""
    subject: str
    """May hold surrogate escapes where the subject was not UTF-8."""
    payload: bytes
    headers: Mapping[str, str] | None = None


class Origin(NamedTuple):
    """What a message says of where it came from, and when."""

    originator: str
    replica: str | None
    """None where it is unknown."""
    timestamp: int
    """Unix ms by the clock of the replica, as it stands in the message."""


class Skipped(NamedTuple):
    """A message of a type this version does not know, since the protocol may grow, or one that states no event."""

    type: str
    """What follows `endpoint.` in the subject; in parentheses, what else it is."""


class DeadLetter(NamedTuple):
    """A message that could not be folded, and why."""

    message: Message
    reason: PoisonReason
    detail: str
    """For a person to act on."""


class StreamState(NamedTuple):
    """What a stream holds at the moment."""

    created_at: int
    """Unix ms; another creation time means another stream."""
    first: int
    """Position of the oldest message; one past `last` where there is none."""
    last: int
    """Position of the newest message there ever was; 0 for none."""
    began: int = 1
    """Position of its first message ever; a stream can be created so that it begins high."""
    deleted: int = 0
    """Positions between `first` and `last` whose messages were deleted."""


class Delivery(NamedTuple):
    """Messages that came together, in stream order."""

    messages: Sequence[Message]
    pending: int
    """Messages of ours that the stream held behind the last of these when it was sent."""
    acknowledge_to: str
    """Subject to acknowledge all of them at once; empty if that is done with a later part of the same delivery."""


class Selection(NamedTuple):
    """Which of the parked dead letters are meant; all of them if nothing is said."""

    positions: Sequence[int] = ()
    reason: str | None = None
