"""Messages that say only that earlier ones of their subject are gone (NATS ADR-43), and no event."""

from projector.domain.messages import Message, Skipped

DELETE_MARKER = Skipped("(delete marker)")
ROLLUP_MARKER = Skipped("(rollup marker)")


def find_marker(message: Message) -> Skipped | None:
    """Return what a message without a payload is counted as, if its headers say that it is a marker; else None."""
    if message.payload or not message.headers:
        return None
    if "Nats-Marker-Reason" in message.headers:
        return DELETE_MARKER
    if "Nats-Rollup" in message.headers:
        return ROLLUP_MARKER
    return None
