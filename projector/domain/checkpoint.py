"""The checkpoint: how far a projection has folded its stream, and what identifies that stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from projector.domain.messages import Message
from projector.domain.rules import Rules
from projector.domain.shards import WHOLE, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Identifies the message at the checkpoint."""

    stored_at: int
    """Unix ms."""
    payload_hash: bytes
    """SHA-256."""

    @classmethod
    def of(cls, message: Message) -> "Anchor":
        """Return the anchor of a message."""
        return cls(stored_at=message.stored_at, payload_hash=sha256(message.payload).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The position up to which every message is folded, parked or skipped, and the stream it belongs to."""

    stream: str
    stream_created_at: int
    """Unix ms."""
    rules: Rules
    shard: Shard = WHOLE
    position: int = 0
    anchor: Anchor | None = None
    """None if there is no folded message at the position: at the beginning, and after an accepted gap."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Messages of unknown types so far, by type."""
    generation: int = 0
    """Incremented when a rebuild or retry changes rows; invalidates prefetched state."""
