"""What an inspection of a NATS server, its stream and its consumers shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from projector.domain.messages import Message, StreamState


class Coverage(Enum):
    """How much of a subject with wildcards a stream stores."""

    WHOLLY = "wholly"
    PARTLY = "partly"
    NOT_AT_ALL = "not at all"


class Sample(NamedTuple):
    """A message of a known event type, decoded with every revision."""

    position: int
    revisions: frozenset[str]
    """Revisions in which it can be folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Number of messages in the stream that match the daemon's filters, and the foreign ones."""

    messages: int
    matching: Mapping[str, int]
    """Messages that match, by originator of the settings (`*`: all of them)."""
    foreign: Mapping[str, int]
    """The other messages by a filter that groups them, largest first; empty if there are too many subjects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """Configuration and state of the stream."""

    state: StreamState
    at_checkpoints: Mapping[int, Message] = field(default_factory=dict)
    """The messages at the checkpoints that the stream still holds, by position."""
    stores: Mapping[str, Coverage]
    """Coverage of each event subject; empty if the stream is filled from other streams."""
    traffic: Traffic | None = None
    """None: the server cannot count by subject."""
    samples: tuple[Sample, ...] = ()
    """A few of the newest messages of each event type, in stream order."""
    transformed: tuple[str, ...] = ()
    """Event subjects that the stream stores under other subjects."""
    free_consumers: int | None = None
    """How many more consumers its own limit allows; None: any number."""
    sealed: bool = False
    """Whether it stores no more messages."""
    max_message_bytes: int | None = None
    retention: str = "limits"
    storage: str = "file"
    replicas: int = 1
    clustered: bool = False
    refuses_when_full: bool = False
    """Whether the stream refuses new messages at a limit, instead of deleting old ones."""
    max_age_s: float | None = None
    max_messages: int | None = None
    max_bytes: int | None = None
    max_messages_per_subject: int | None = None
    message_ttl: bool = False
    """Whether publishers may set a time to live."""
    acknowledges_unwritten: bool = False
    """Whether publishers are acknowledged before the message is written (`persist_mode: async`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerInfo:
    """Configuration and state of a durable consumer."""

    name: str
    shard: int = 0
    created_by_projector: bool
    pushes: bool = False
    acknowledges: str = "all"
    """Its acknowledgement policy."""
    filters: frozenset[str] = frozenset()
    headers_only: bool = False
    paused_until: str | None = None
    prioritises: bool = False
    """Whether it serves priority groups only."""
    waiting: int = 0
    """Pull requests that wait for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedInfo:
    """Configuration of the stream that stores the published changes."""

    prefix: str
    forbidden: tuple[str, ...] = ()
    """Subjects that publishing needs and the user may not use."""
    stream: str | None = None
    """None: there is none, or it could not be inspected."""
    stores_events: bool = False
    """Whether it stores the events as well."""
    stores_others: bool = False
    """Whether it stores other subjects as well."""
    window_s: float = 0
    """How long it recognizes repeated messages."""
    refuses_when_full: bool = False
    max_messages: int | None = None
    max_bytes: int | None = None
    max_message_bytes: int | None = None
    sealed: bool = False
    unseen: str | None = None
    """What could not be inspected, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerInfo:
    """A NATS server as the daemon's user sees it."""

    version: tuple[int, ...]
    filters: tuple[str, ...]
    """Subject filters of the daemon."""
    forbidden: tuple[str, ...] = ()
    """Subjects that the daemon needs and the user may not use."""
    forbidden_to_replay: tuple[str, ...] = ()
    """Subjects that only `rebuild`, `verify` and `status` need and the user may not use."""
    forbidden_to_acknowledge: tuple[str, ...] = ()
    """Subjects of acknowledgements, on servers with a certain feature flag, that the user may not use."""
    jetstream: bool = True
    stream: StreamInfo | None = None
    """None: it is missing, or the user may not see it."""
    stream_missing: bool = False
    consumers: tuple[ConsumerInfo, ...] = ()
    """Those of the shards, in order, that exist and that the user may see."""
    missing_consumers: int = 0
    """How many of them do not exist."""
    free_consumers: int | None = None
    """How many more consumers the stream and the account allow; None: any number, as far as is known."""
    feed: FeedInfo | None = None
    """The stream of the published changes; None: they are not published."""
    clock: tuple[float, float, float] | None = None
    """Unix s: local time of the request, the server's time, local time of the answer; None if the server gives none."""
    sync_every_s: float | None = None
    """How often the server syncs its files, 0 for before each acknowledgement; None: unknown."""
    unseen: tuple[str, ...] = ()
    """What could not be inspected, and why."""
