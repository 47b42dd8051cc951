"""The changes of the log, and how far they are published."""

from collections.abc import Sequence
from typing import NamedTuple

from projector.errors import ProjectorError


class Place(NamedTuple):
    """A place in the log of one shard: after one of its changes, or after a whole commit."""

    commit_no: int
    change: tuple[int, str, str] | None = None
    """Position (0 if it has none), endpoint and facet of the latest change; None: the commit is complete."""

    @property
    def order(self) -> tuple[object, ...]:
        """A key that sorts places as the log is read."""
        return (self.commit_no, self.change is None, self.change or ())


class ChangeId(NamedTuple):
    """Identifies a change, even after the database was restored from a backup."""

    shard: int
    committed_at: int
    """Unix ms; a restored database uses the same commit numbers again, at other times."""
    place: Place


class LoggedChange(NamedTuple):
    """A row of `endpoint_change`; times are Unix ms."""

    shard: int
    commit_no: int
    committed_at: int
    endpoint_id: str
    facet: str
    verdict: str
    position: int | None
    occurred_at: int | None
    stored_at: int | None
    event: str | None
    originator: str | None
    replica: str | None
    before: bytes | None
    """JSON."""
    after: bytes | None
    """JSON."""

    @property
    def place(self) -> Place:
        """The place after this change."""
        return Place(self.commit_no, (self.position or 0, self.endpoint_id, self.facet))


class FeedCursor(NamedTuple):
    """How far the changes of a shard are published."""

    shard: int
    place: Place
    """Everything up to here is published, or lost."""
    committed_at: int
    """Time of that commit in Unix ms: a log that begins later has a gap."""
    stream: str | None = None
    """The stream that holds the latest message."""
    stream_seq: int = 0
    """Sequence of that message; 0 if there is none."""
    lost_commits: int = 0
    """Number of commits whose changes left the log before they were published."""


class Page(NamedTuple):
    """What follows a place in the log."""

    changes: Sequence[LoggedChange]
    """The applied and corrected ones, in order."""
    end: Place
    """The place after them, and after commits that have nothing to publish."""
    committed_at: int
    """Time of the last commit before `end`, in Unix ms."""
    complete: bool = False
    """Whether nothing else could be read."""
    lost_commits: int = 0
    """How many commits before `end` are no longer in the log, at most; such a page has no changes."""


class Appended(NamedTuple):
    """The result of appending several changes."""

    stored: int
    """How many of them, from the first on, are stored."""
    last: int | None
    """Sequence of the last message of the stream; None: it has to be asked for."""
    error: ProjectorError | None
    """Why the next one is not stored; FeedMovedError: the stream has another end."""
