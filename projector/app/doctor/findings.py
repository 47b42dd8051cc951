"""What a check looks at, and what it finds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from projector.domain.broker_info import BrokerInfo, ConsumerInfo, StreamInfo
from projector.domain.checkpoint import Checkpoint
from projector.domain.database_info import DatabaseInfo
from projector.domain.rules import Rules
from projector.errors import ProjectorError

Severity = Literal["error", "warning"]
"""An error keeps the projector from working, or from being right; a warning may hurt one day."""

Version: TypeAlias = tuple[int, ...]

F = TypeVar("F")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything that was looked at; a server that cannot be looked at is the error that says why."""

    stream: str
    """The one that the settings name."""
    rules: Rules
    broker: BrokerInfo | ProjectorError
    database: DatabaseInfo | ProjectorError

    @property
    def seen_broker(self) -> BrokerInfo | None:
        """What the NATS server tells, if it could be looked at."""
        return self.broker if isinstance(self.broker, BrokerInfo) else None

    @property
    def seen_database(self) -> DatabaseInfo | None:
        """What the database tells, if it could be looked at."""
        return self.database if isinstance(self.database, DatabaseInfo) else None

    @property
    def seen_stream(self) -> StreamInfo | None:
        """How the stream is, if it could be looked at."""
        return self.seen_broker.stream if self.seen_broker else None

    @property
    def seen_consumer(self) -> ConsumerInfo | None:
        """How the durable consumer is, if there is one that could be looked at."""
        return self.seen_broker.consumer if self.seen_broker else None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """How far the table is folded, if anything ever was and it could be looked at."""
        return self.seen_database.checkpoint if self.seen_database else None


class Finding(NamedTuple):
    """One thing that will hurt."""

    name: str
    severity: Severity
    what: str
    remedy: str


class Check(NamedTuple, Generic[F]):
    """How to find one thing that will hurt, and what to do about it."""

    name: str
    severity: Severity
    look: Callable[[F], str | None]
    """Returns what is wrong, or None."""
    remedy: str


def version_text(version: Version) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def found(checks: Sequence[Check[F]], seen: F | None) -> Iterator[Finding]:
    """Yield what some checks find in what they look at; nothing if that could not be seen."""
    if seen is None:
        return
    for check in checks:
        what = check.look(seen)
        if what is not None:
            yield Finding(check.name, check.severity, what, check.remedy)
