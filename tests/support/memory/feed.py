"""The log of changes and the stream that it is published to in memory, with the ports of `app.feed`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from projector.domain.changes import Appended, ChangeId, FeedCursor, LoggedChange, Page, Place, Tail
from projector.errors import (
    BrokerUnavailableError,
    DatabaseUnavailableError,
    FeedMovedError,
    FeedStreamMissingError,
    ProjectorError,
)
from tests.support.memory.connections import Connection, Connections

PAGE = 3
_PUBLISHED = ("applied", "corrected")


class MemoryFeed:
    """The log, the cursor and the stream, and faults of both servers; the port `Connections`."""

    def __init__(self) -> None:
        self.database = Connections(DatabaseUnavailableError)
        self.broker = Connections(BrokerUnavailableError)
        self.changes: list[LoggedChange] = []
        self.commits = 0
        self.advanced_at = 0
        self.changes_since = 0
        self.saved: FeedCursor | None = FeedCursor(Place(0), 0)
        self.error: str | None = None
        self.stream_exists = True
        self.refusal: ProjectorError | None = None
        """Why the stream stores nothing."""
        self.stored: list[LoggedChange | None] = []
        """Messages; None: one of another program."""
        self.trimmed = 0
        """Messages that have left the stream."""
        self.news = asyncio.Event()

    def commit(self, *changes: LoggedChange, at: int) -> None:
        """Log the changes of a commit."""
        self.commits += 1
        self.advanced_at = at
        self.changes += (change._replace(commit_no=self.commits, committed_at=at) for change in changes)
        self.news.set()

    def commit_without_log(self, commits: int, *, at: int) -> None:
        """Commit without the log, which begins anew."""
        self.commits += commits
        self.advanced_at = self.changes_since = at

    def drop(self, before: int) -> None:
        """Drop the changes before a time, as retention does."""
        self.changes = [change for change in self.changes if change.committed_at >= before]
        self.changes_since = before

    @property
    def published(self) -> list[LoggedChange]:
        """The changes in the stream."""
        return [one for one in self.stored if one is not None]

    @asynccontextmanager
    async def log(self) -> AsyncIterator["MemoryChangeLog"]:
        connection = await self.database.connect()
        try:
            yield MemoryChangeLog(self, connection)
        finally:
            self.database.disconnect(connection)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator["MemoryChangeStream"]:
        connection = await self.broker.connect()
        try:
            if not self.stream_exists:
                raise FeedStreamMissingError("fleet", "S_CHANGES")
            yield MemoryChangeStream(self, connection)
        finally:
            self.broker.disconnect(connection)


class MemoryChangeLog:
    """The port `ChangeLog`."""

    def __init__(self, feed: MemoryFeed, connection: Connection) -> None:
        self._feed = feed
        self._connection = connection

    async def cursor(self) -> FeedCursor | None:
        await self._connection.turn()
        return self._feed.saved

    async def read(self, cursor: FeedCursor) -> Page:
        await self._connection.turn()
        feed, place = self._feed, cursor.place
        if feed.commits <= place.commit_no and place.change is None:
            return Page((), place, max(cursor.committed_at, feed.changes_since), complete=True)
        left = sorted(
            (change for change in feed.changes if change.place.order > place.order),
            key=lambda change: change.place.order,
        )
        if feed.changes_since > cursor.committed_at:
            before = [change for change in left if change.committed_at < feed.changes_since]
            if wanted := [change for change in before if change.verdict in _PUBLISHED][:PAGE]:
                return Page(wanted, wanted[-1].place, wanted[-1].committed_at)
            after = left[len(before)].commit_no if len(before) < len(left) else feed.commits + 1
            held = {change.commit_no for change in feed.changes}
            begun = place.commit_no + (place.change is None)
            lost = after - 1 - max((number for number in held if begun <= number < after), default=begun - 1)
            if lost:
                at = left[len(before)].committed_at if len(before) < len(left) else feed.advanced_at
                return Page((), Place(after - 1), at, lost_commits=lost)
        wanted = [change for change in left if change.verdict in _PUBLISHED]
        if len(wanted) < PAGE:
            return Page(wanted, Place(feed.commits), feed.advanced_at, complete=True)
        return Page(wanted[:PAGE], wanted[PAGE - 1].place, wanted[PAGE - 1].committed_at)

    async def holds(self, change: ChangeId) -> bool:
        await self._connection.turn()
        return any((one.shard, one.committed_at, one.place) == change for one in self._feed.changes)

    async def move(self, before: FeedCursor, after: FeedCursor) -> None:
        await self._connection.turn()
        if self._feed.saved is None or self._feed.saved.place != before.place:
            raise FeedMovedError("moved")
        self._feed.saved = after

    async def note(self, error: str | None) -> None:
        await self._connection.turn()
        self._feed.error = error

    async def wait(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._feed.news.wait()
        self._feed.news.clear()

    def wake(self) -> None:
        self._feed.news.set()


class MemoryChangeStream:
    """The port `ChangeStream`, of a stream that recognizes every repeated message."""

    name = "S_CHANGES"

    def __init__(self, feed: MemoryFeed, connection: Connection) -> None:
        self._feed = feed
        self._connection = connection

    async def tail(self) -> Tail:
        await self._connection.turn()
        newest = next((one for one in reversed(self._feed.stored[self._feed.trimmed :]) if one is not None), None)
        last = len(self._feed.stored)
        return Tail(last, newest and ChangeId(newest.shard, newest.committed_at, newest.place))

    async def append(self, changes: Sequence[LoggedChange], after: int | None) -> Appended:
        await self._connection.turn()
        known = True
        for number, change in enumerate(changes):
            if self._feed.refusal is not None:
                return Appended(number, None, self._feed.refusal)
            if change in self._feed.stored:
                known = False
                continue
            if number == 0 and after is not None and after != len(self._feed.stored):
                return Appended(number, None, FeedMovedError("another end"))
            if number and self._feed.stored[-1] != changes[number - 1]:
                return Appended(number, None, FeedMovedError("another end"))
            self._feed.stored.append(change)
        return Appended(len(changes), len(self._feed.stored) if known and after is not None else None, None)
