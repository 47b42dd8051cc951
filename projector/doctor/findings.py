"""Checks, their input, and their findings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from projector.domain.broker_info import BrokerInfo, StreamInfo
from projector.domain.checkpoint import Checkpoint
from projector.domain.database_info import DatabaseInfo
from projector.domain.rules import Rules
from projector.errors import ProjectorError

Severity = Literal["error", "warning"]
"""An error keeps the projector from running, or from correct results; a warning may cause harm later."""

Version: TypeAlias = tuple[int, ...]

F = TypeVar("F")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was inspected; a server that could not be inspected is represented by the error."""

    stream: str
    """The stream of the settings."""
    rules: Rules
    broker: BrokerInfo | ProjectorError
    database: DatabaseInfo | ProjectorError

    @property
    def seen_broker(self) -> BrokerInfo | None:
        """The NATS server, if it could be inspected."""
        return self.broker if isinstance(self.broker, BrokerInfo) else None

    @property
    def seen_database(self) -> DatabaseInfo | None:
        """The database, if it could be inspected."""
        return self.database if isinstance(self.database, DatabaseInfo) else None

    @property
    def seen_stream(self) -> StreamInfo | None:
        """The stream, if it exists and could be inspected."""
        return self.seen_broker.stream if self.seen_broker else None

    @property
    def checkpoints(self) -> Sequence[Checkpoint]:
        """The checkpoints of the shards, in order; none if they do not exist or could not be inspected."""
        return self.seen_database.checkpoints if self.seen_database else ()


class Finding(NamedTuple):
    """One thing that is wrong."""

    name: str
    severity: Severity
    what: str
    remedy: str


class Check(NamedTuple, Generic[F]):
    """Finds one thing that is wrong, and says how to correct it."""

    name: str
    severity: Severity
    look: Callable[[F], str | None]
    """Returns what is wrong, or None."""
    remedy: str


def version_text(version: Version) -> str:
    """Return a version as text."""
    return ".".join(map(str, version))


def shards_have(shards: Sequence[int]) -> str:
    """Return the beginning of a sentence about some shards."""
    return f"shard {shards[0]} has" if len(shards) == 1 else f"shards {', '.join(map(str, shards))} have"


def found(checks: Sequence[Check[F]], seen: F | None) -> Iterator[Finding]:
    """Yield the findings of some checks; none if their input could not be inspected."""
    if seen is None:
        return
    for check in checks:
        what = check.look(seen)
        if what is not None:
            yield Finding(check.name, check.severity, what, check.remedy)
