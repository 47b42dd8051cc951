"""How far a projection has folded its stream, and what it needs to trust the source again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from projector.domain.messages import Message
from projector.errors import RulesChangedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the rows depend on besides the stream; rows of different rules must not be mixed."""

    version: str
    """Fingerprint of the code that turns messages into rows."""
    revision: str
    """Revision of the protocol."""
    originators: tuple[str, ...]
    """Whose events are folded, sorted; empty for everybody's."""

    def check(self, now: "Rules") -> None:
        """Make sure that rows of these rules may be folded on by those of `now`.

        Raises:
            RulesChangedError: they are not the same.
        """
        if self.revision != now.revision:
            raise RulesChangedError(what="protocol revision", built_with=self.revision, now=now.revision)
        if self.originators != now.originators:
            raise RulesChangedError(
                what="the events of originators",
                built_with=", ".join(self.originators) or "(all)",
                now=", ".join(now.originators) or "(all)",
            )
        if self.version != now.version:
            raise RulesChangedError(what="rules version", built_with=self.version, now=now.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What the message at the checkpoint was, to recognise it by."""

    stored_at: int
    """Unix ms."""
    payload_hash: bytes
    """SHA-256."""

    @classmethod
    def of(cls, message: Message) -> "Anchor":
        """Return the anchor that a message makes."""
        return cls(stored_at=message.stored_at, payload_hash=sha256(message.payload).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The position up to which everything is folded or parked, and where it is a position of."""

    stream: str
    stream_created_at: int
    """Unix ms."""
    rules: Rules
    position: int = 0
    anchor: Anchor | None = None
    """None where no message is folded at the position: at the beginning, and where an accepted gap was crossed."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Messages of unknown types so far, by type."""
    generation: int = 0
    """How often rows were changed other than by folding on, after which nothing remembered of them holds."""
