"""The logs of changes and the stream that they are published to in memory, with the ports of `app.feed`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from projector.domain.changes import Appended, ChangeId, FeedCursor, LoggedChange, Page, Place
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


@dataclass
class Head:
    """The end of the log of a shard, as its checkpoint has it."""

    commits: int = 0
    advanced_at: int = 0
    changes_since: int = 0


class MemoryFeed:
    """The logs, their cursors and the stream, and faults of both servers; the port `Connections`."""

    def __init__(self, shards: int = 1) -> None:
        self.database = Connections(DatabaseUnavailableError)
        self.broker = Connections(BrokerUnavailableError)
        self.changes: list[LoggedChange] = []
        self.heads = [Head() for _ in range(shards)]
        self.saved = {number: FeedCursor(number, Place(0), 0) for number in range(shards)}
        self.error: str | None = None
        self.stream_exists = True
        self.refusal: ProjectorError | None = None
        """Why the stream stores nothing."""
        self.stored: list[LoggedChange | None] = []
        """Messages; None: one of another program."""
        self.trimmed = 0
        """Messages that have left the stream."""
        self.looked_at = 0
        """Messages that publishers have looked at."""
        self.news = asyncio.Event()

    def commit(self, *changes: LoggedChange, at: int, shard: int = 0) -> None:
        """Log the changes of a commit."""
        head = self.heads[shard]
        head.commits += 1
        head.advanced_at = at
        self.changes += (change._replace(shard=shard, commit_no=head.commits, committed_at=at) for change in changes)
        self.news.set()

    def commit_without_log(self, commits: int, *, at: int) -> None:
        """Commit without the log, which then begins anew."""
        head = self.heads[0]
        head.commits += commits
        head.advanced_at = head.changes_since = at

    def drop(self, before: int) -> None:
        """Drop the changes before a time, as retention does."""
        self.changes = [change for change in self.changes if change.committed_at >= before]
        for head in self.heads:
            head.changes_since = before

    def log_of(self, shard: int) -> list[LoggedChange]:
        """The changes of a shard that are to be published."""
        return [one for one in self.changes if one.shard == shard and one.verdict in _PUBLISHED]

    def stored_of(self, shard: int) -> list[LoggedChange]:
        """The changes of a shard that the stream has."""
        return [one for one in self.published if one.shard == shard]

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

    async def cursors(self) -> Sequence[FeedCursor]:
        await self._connection.turn()
        return [*self._feed.saved.values()]

    async def read(self, cursor: FeedCursor) -> Page:
        await self._connection.turn()
        place, head = cursor.place, self._feed.heads[cursor.shard]
        logged = [change for change in self._feed.changes if change.shard == cursor.shard]
        if head.commits <= place.commit_no and place.change is None:
            return Page((), place, max(cursor.committed_at, head.changes_since), complete=True)
        left = sorted(
            (change for change in logged if change.place.order > place.order), key=lambda change: change.place.order
        )
        if head.changes_since > cursor.committed_at:
            before = [change for change in left if change.committed_at < head.changes_since]
            if wanted := [change for change in before if change.verdict in _PUBLISHED][:PAGE]:
                return Page(wanted, wanted[-1].place, wanted[-1].committed_at)
            after = left[len(before)].commit_no if len(before) < len(left) else head.commits + 1
            held = {change.commit_no for change in logged}
            begun = place.commit_no + (place.change is None)
            lost = after - 1 - max((number for number in held if begun <= number < after), default=begun - 1)
            if lost:
                at = left[len(before)].committed_at if len(before) < len(left) else head.advanced_at
                return Page((), Place(after - 1), at, lost_commits=lost)
        wanted = [change for change in left if change.verdict in _PUBLISHED]
        if len(wanted) < PAGE:
            return Page(wanted, Place(head.commits), head.advanced_at, complete=True)
        return Page(wanted[:PAGE], wanted[PAGE - 1].place, wanted[PAGE - 1].committed_at)

    async def holds(self, change: ChangeId) -> bool:
        await self._connection.turn()
        return any((one.shard, one.committed_at, one.place) == change for one in self._feed.changes)

    async def move(self, moves: Sequence[tuple[FeedCursor, FeedCursor]]) -> None:
        await self._connection.turn()
        saved = self._feed.saved
        if any(before.shard not in saved or saved[before.shard].place != before.place for before, _ in moves):
            raise FeedMovedError("moved")
        saved.update((after.shard, after) for _, after in moves)

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

    async def last(self) -> int:
        await self._connection.turn()
        return len(self._feed.stored)

    async def newest_first(self) -> AsyncGenerator[ChangeId, None]:
        for one in reversed(self._feed.stored[self._feed.trimmed :]):
            await self._connection.turn()
            if one is not None:
                self._feed.looked_at += 1
                yield ChangeId(one.shard, one.committed_at, one.place)

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
