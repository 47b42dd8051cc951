"""Measures how far the clocks of replicas differ from that of NATS, on a sample of the messages."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from projector.app.notifications import Notification, Received
from projector.app.observers import Observer
from projector.app.ports import Decoder
from projector.domain.messages import Message

_COMPARED = 8
_PAIRS_NAMED = 50
_LONGEST_NAMED = 200
"""Characters of originator and replica together; bounds the size of a scrape."""
_OTHER = "(other)"

Note: TypeAlias = Callable[[str, str, float], None]
"""Takes originator, replica, and stored time minus event time in seconds; negative: the replica's clock is ahead."""


class ClockSkew(Observer):
    """Compares a few messages of each batch, evenly spread, so that the cost is negligible."""

    def __init__(self, decoder: Decoder, note: Note) -> None:
        """Read origins with a decoder."""
        self._decoder = decoder
        self._note = note
        self._named: set[tuple[str, str]] = set()

    def notify(self, notification: Notification) -> None:
        """Compare the clocks of a received batch."""
        if isinstance(notification, Received):
            self._compare(notification.messages)

    def _compare(self, messages: Sequence[Message]) -> None:
        for message in messages[:: -(-len(messages) // _COMPARED)]:
            origin = self._decoder.origin(message)
            if origin is not None and origin.timestamp > 0:
                pair = self._name(origin.originator, origin.replica or "")
                self._note(*pair, (message.stored_at - origin.timestamp) / 1000)

    def _name(self, originator: str, replica: str) -> tuple[str, str]:
        """Return the pair, or `(other)` if it is too long or there are too many."""
        pair = (originator, replica)
        if pair not in self._named:
            if len(self._named) >= _PAIRS_NAMED or len(originator) + len(replica) > _LONGEST_NAMED:
                return (_OTHER, _OTHER)
            self._named.add(pair)
        return pair
