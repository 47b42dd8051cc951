"""The interfaces that publishing needs: the log of changes, and the stream that it is copied to.

Each has two implementations: the real one, named in its docstring, and one in memory, in `tests.support.memory`.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from projector.domain.changes import Appended, ChangeId, FeedCursor, LoggedChange, Page, Tail


class ChangeLog(Protocol):
    """The log of one shard, and its cursor; see `storage.feed.ChangeLog`."""

    async def cursor(self) -> FeedCursor | None:
        """Return how far the changes are published; None: no leader that publishes has begun to fold."""
        ...

    async def read(self, cursor: FeedCursor) -> Page:
        """Return what follows a cursor."""
        ...

    async def holds(self, change: ChangeId) -> bool:
        """Return whether the log has a change."""
        ...

    async def move(self, before: FeedCursor, after: FeedCursor) -> None:
        """Move the cursor by compare-and-set; raises FeedMovedError."""
        ...

    async def note(self, error: str | None) -> None:
        """Write why nothing is published, for users to read; None: it is."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Return when a commit is notified, or after a while."""
        ...

    def wake(self) -> None:
        """Make `wait` return."""
        ...


class ChangeStream(Protocol):
    """The stream that stores the prefix; see `stream.change_stream.ChangeStream`."""

    @property
    def name(self) -> str:
        """Name of the stream."""
        ...

    async def tail(self) -> Tail:
        """Return the end of the stream."""
        ...

    async def append(self, changes: Sequence[LoggedChange], after: int | None) -> Appended:
        """Append changes in order, each directly after the one before, and the first one after a sequence.

        None: the first one after any message; then only its id keeps a repeat out, for a while.
        """
        ...


class Connections(Protocol):
    """Connects to both, as context managers."""

    def log(self) -> AbstractAsyncContextManager[ChangeLog]:
        """Connect to the database."""
        ...

    def stream(self) -> AbstractAsyncContextManager[ChangeStream]:
        """Connect to NATS, and find the stream; raises FeedStreamMissingError."""
        ...
