"""Marker messages (NATS ADR-43), which state no event, only that earlier messages of their subject are gone."""

from projector.domain.messages import Message, Skipped

DELETE_MARKER = Skipped("(delete marker)")
ROLLUP_MARKER = Skipped("(rollup marker)")


def find_marker(message: Message) -> Skipped | None:
    """Return the kind of marker that the headers of a message without a payload state, or None."""
    if message.payload or not message.headers:
        return None
    if "Nats-Marker-Reason" in message.headers:
        return DELETE_MARKER
    if "Nats-Rollup" in message.headers:
        return ROLLUP_MARKER
    return None
