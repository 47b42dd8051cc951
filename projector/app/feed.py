"""The interfaces that publishing needs: the log of changes, and the stream that it is copied to.

Each has two implementations: the real one, named in its docstring, and one in memory, in `tests.support.memory`.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from projector.domain.changes import Appended, ChangeId, FeedCursor, LoggedChange, Page


class ChangeLog(Protocol):
    """The logs of all shards, and their cursors; see `storage.feed.ChangeLog`."""

    async def cursors(self) -> Sequence[FeedCursor]:
        """Return the cursors, in the order of the shards; a shard has none until its leader has written one."""
        ...

    async def read(self, cursor: FeedCursor) -> Page:
        """Return what follows a cursor in the log of its shard."""
        ...

    async def holds(self, change: ChangeId) -> bool:
        """Return whether the log has a change."""
        ...

    async def move(self, moves: Sequence[tuple[FeedCursor, FeedCursor]]) -> None:
        """Move cursors by compare-and-set, each from the first to the second, all or none; raises FeedMovedError."""
        ...

    async def note(self, error: str | None) -> None:
        """Write why nothing is published, for users to read; None: publishing works."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Return when a notification of a commit arrives, or after a while."""
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

    async def last(self) -> int:
        """Return the sequence of its latest message, of any subject; 0 if it never had one."""
        ...

    def newest_first(self) -> AsyncGenerator[ChangeId, None]:
        """Yield the changes that it holds under the prefix, from its end back to its beginning."""
        ...

    async def append(self, changes: Sequence[LoggedChange], after: int | None) -> Appended:
        """Append changes in order, each directly after the one before, and the first one after a sequence.

        None: the first one may follow any message; then only its id keeps a repeat out, for a while.
        """
        ...


class Connections(Protocol):
    """Connects to both, as context managers; see `composition.Composition`."""

    def log(self) -> AbstractAsyncContextManager[ChangeLog]:
        """Connect to the database."""
        ...

    def stream(self) -> AbstractAsyncContextManager[ChangeStream]:
        """Connect to NATS, and find the stream; raises FeedStreamMissingError."""
        ...
