"""The notifications that the daemon sends to its observers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from projector.app.projection import Outcome
from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import Message
from projector.domain.shards import WHOLE, Shard
from projector.errors import TransientError


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The event loop is alive; sent about once a second while the daemon waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingBy:
    """Other projectors lead; this one waits to take over."""

    shards: int | None = None
    """Number of shards of the projection; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """This projector leads a shard, and folds from the checkpoint."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """This projector no longer leads one of several shards."""

    shard: Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied:
    """A worker process has ended without being asked to; another one is started in its place."""

    worker: int
    """Its number, from 1."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TooManyWorkers:
    """There are fewer shards than worker processes: some of them only stand by."""

    workers: int
    shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A batch of messages arrived, in stream order; it is not committed yet."""

    messages: Sequence[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A batch is in the database."""

    checkpoint: Checkpoint
    outcome: Outcome
    pending: int
    """Matching messages that the stream held after this batch when it was delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp:
    """Every message that the consumer knows of is folded, as far as it concerns the shard of the checkpoint."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """A transient error ended the session; the daemon starts a new one."""

    error: TransientError
    shard: Shard = WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecognized:
    """NATS has changed the creation time of the stream; its message at the checkpoint shows that it is the same one."""

    checkpoint: Checkpoint
    """With the new creation time."""
    created_before: int
    """The previous creation time, in Unix ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Changes are stored in the stream that they are published to."""

    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishingFailed:
    """Nothing is published until the cause is gone; the daemon keeps folding and retries."""

    error: Exception
    """A ProjectorError, unless the projector itself is at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishingResumed:
    """Changes are published again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesLost:
    """Changes left the log before they were published; publishing continues after them."""

    commits: int
    """Number of commits, at most: some may have had no changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """The HTTP server answers."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotListening:
    """The HTTP server cannot listen; it retries every few seconds while the daemon keeps folding."""

    reason: str


Notification: TypeAlias = (
    Heartbeat
    | StandingBy
    | Active
    | Released
    | WorkerDied
    | TooManyWorkers
    | Received
    | Committed
    | CaughtUp
    | Retrying
    | StreamRecognized
    | Published
    | PublishingFailed
    | PublishingResumed
    | ChangesLost
    | Listening
    | NotListening
)
"""New kinds may be added: an observer must ignore the ones that it does not know."""
