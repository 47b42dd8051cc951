"""What can be known of a NATS server by looking at it, and of a stream and a consumer on it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Coverage(Enum):
    """How much of a subject with wildcards a stream stores."""

    WHOLLY = "wholly"
    PARTLY = "partly"
    NOT_AT_ALL = "not at all"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """How a stream is set up, and what it holds."""

    created_at: int
    """Unix ms."""
    first: int
    """Position of the oldest message; one past `last` where there is none."""
    last: int
    stores: Mapping[str, Coverage]
    """For each subject of our events, how much of it the stream takes; empty if it is filled from other streams."""
    unmatched: tuple[str, ...] = ()
    """Those of our subject filters that no message in the stream matches, where it has any."""
    retention: str = "limits"
    storage: str = "file"
    replicas: int = 1
    clustered: bool = False
    """Whether it stands in a cluster, where several servers can keep it."""
    refuses_when_full: bool = False
    """Whether new messages are refused at a limit, and not old ones deleted."""
    max_age_s: float | None = None
    max_messages: int | None = None
    max_bytes: int | None = None
    max_messages_per_subject: int | None = None
    message_ttl: bool = False
    """Whether a publisher can have a message deleted after a time."""
    acknowledges_unwritten: bool = False
    """Whether publishers are told that a message is stored before it is written (`persist_mode: async`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerFacts:
    """How the durable consumer is set up that has the name of ours."""

    name: str
    ours: bool
    """Whether a projector has made it."""
    pushes: bool = False
    acknowledges: str = "all"
    filters: frozenset[str] = frozenset()
    headers_only: bool = False
    paused: bool = False
    prioritises: bool = False
    """Whether it answers only those who pull in the name of a group."""
    waiting: int = 0
    """Requests for messages that wait for an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFacts:
    """What a NATS server tells about itself."""

    version: tuple[int, ...]
    filters: tuple[str, ...]
    """Our subject filters."""
    forbidden: tuple[str, ...] = ()
    """What the daemon needs and may not do."""
    forbidden_to_replay: tuple[str, ...] = ()
    """What only a rebuild, a verification and `status` need and may not do."""
    jetstream: bool = True
    stream: StreamFacts | None = None
    """None: it is missing, or may not be looked at."""
    stream_missing: bool = False
    consumer: ConsumerFacts | None = None
    clock: tuple[float, float, float] | None = None
    """Unix s: ours when the server was asked, the server's, ours when it had answered; None if it does not tell."""
    sync_every_s: float | None = None
    """How often it has its disks written, 0 for before each acknowledgement; None if it is not seen."""
    unseen: tuple[str, ...] = ()
    """What could not be looked at, and why."""


def coverage(stored: Iterable[str], subject: str) -> Coverage:
    """Return how much of a subject with wildcards is matched by those that a stream stores."""
    wanted = subject.split(".")
    patterns = [pattern.split(".") for pattern in stored]
    if any(_covers(pattern, wanted) for pattern in patterns):
        return Coverage.WHOLLY
    return Coverage.PARTLY if any(_overlaps(pattern, wanted) for pattern in patterns) else Coverage.NOT_AT_ALL


def _covers(pattern: Sequence[str], wanted: Sequence[str]) -> bool:
    if pattern[:1] == [">"]:
        return bool(wanted)
    if not pattern or not wanted:
        return not pattern and not wanted
    fits = pattern[0] == wanted[0] or (pattern[0] == "*" and wanted[0] != ">")
    return fits and _covers(pattern[1:], wanted[1:])


def _overlaps(pattern: Sequence[str], wanted: Sequence[str]) -> bool:
    if not pattern or not wanted:
        return not pattern and not wanted
    if ">" in (pattern[0], wanted[0]):
        return True
    fits = pattern[0] == wanted[0] or "*" in (pattern[0], wanted[0])
    return fits and _overlaps(pattern[1:], wanted[1:])
