"""Messages as the stream holds them, before decoding."""

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
    """Holds surrogate escapes if the subject was not UTF-8."""
    payload: bytes
    headers: Mapping[str, str] | None = None

    @property
    def type(self) -> str:
        """Group and type, for a message that was decoded: what follows `endpoint.` in its subject."""
        return self.subject.partition(".endpoint.")[2]


class Origin(NamedTuple):
    """The origin and the time that a message claims."""

    originator: str
    replica: str | None
    """None if it is unknown."""
    timestamp: int
    """Unix ms by the clock of the replica, uncorrected."""


class Skipped(NamedTuple):
    """A message of a type that this version does not know, or one that states no event."""

    type: str
    """What follows `endpoint.` in the subject, or in parentheses a kind of message without an event."""


class DeadLetter(NamedTuple):
    """A message that could not be folded, and why."""

    message: Message
    reason: PoisonReason
    detail: str
    """What is wrong with the message, for an operator."""


class StreamState(NamedTuple):
    """What a stream holds now."""

    created_at: int
    """Unix ms; another creation time means another stream."""
    first: int
    """Position of the oldest message; one past `last` if there is none."""
    last: int
    """Position of the newest message there ever was; 0 for none."""
    began: int
    """Position of its first message ever; a stream can be created so that it begins high."""
    deleted: int
    """Positions between `first` and `last` whose messages were deleted."""


class Delivery(NamedTuple):
    """Messages that came together, in stream order."""

    messages: Sequence[Message]
    pending: int
    """Matching messages that the stream held after the last of these when it was sent."""
    acknowledge_to: str
    """Subject to acknowledge all of them at once; empty if that is done with a later part of the same delivery."""


class Selection(NamedTuple):
    """Selects parked dead letters; all of them by default."""

    positions: Sequence[int] = ()
    reason: str | None = None
