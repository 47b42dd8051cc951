"""The state of a consumer, with the fields that the client library drops."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerState:
    """Configuration and state of a consumer."""

    name: str
    created: str
    """Creation time as NATS writes it, which differs for another consumer of the same name."""
    config: Mapping[str, Any]
    """In the units of the API: durations are nanoseconds."""
    delivered_position: int
    """Stream sequence of the last message delivered; 0 for none."""
    sent: int
    """Consumer sequence of that message."""
    unacknowledged: int
    pending: int
    """Matching messages that are not delivered yet."""
    paused: bool

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Read an answer of the JetStream API."""
        delivered = answer.get("delivered", {})
        return cls(
            name=answer["name"],
            created=answer["created"],
            config=answer["config"],
            delivered_position=delivered.get("stream_seq", 0),
            sent=delivered.get("consumer_seq", 0),
            unacknowledged=answer.get("num_ack_pending", 0),
            pending=answer.get("num_pending", 0),
            paused=answer.get("paused", False),
        )

    @property
    def filters(self) -> frozenset[str]:
        """The subjects that the consumer delivers; empty for the whole stream."""
        return config_filters(self.config)

    @property
    def largest_request(self) -> int | None:
        """The most messages that one pull may request; None for any number."""
        return self.config.get("max_batch") or None


def config_filters(config: Mapping[str, Any]) -> frozenset[str]:
    """Return the filters of a consumer's configuration."""
    return frozenset(filter(None, (config.get("filter_subject"), *config.get("filter_subjects", ()))))
