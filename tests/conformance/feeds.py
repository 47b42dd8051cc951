"""Feeds under test: the one in memory, and one between Postgres and NATS."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Protocol

import asyncpg
from msgspec import Raw
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from projector.app.feed import ChangeLog, ChangeStream
from projector.domain.changes import LoggedChange
from projector.storage import change_log, feed
from projector.storage.wire import set_codecs
from projector.stream import change_stream
from projector.stream.connection import Broker
from tests.support.memory.feed import MemoryFeed

EVENTS = "S"
PREFIX = "fleet"
SHARDS = 3


class FeedUnderTest(Protocol):
    """A log and a stream, and what other programs do to them."""

    async def log_commit(self, *changes: LoggedChange, shard: int = 0) -> list[LoggedChange]:
        """Log a commit of one of three shards; return its changes as they are read."""
        ...

    async def commit_unlogged(self, commits: int) -> None:
        """Commit as a daemon that does not log, then switch the log on again."""
        ...

    async def drop_all(self) -> None: ...

    async def publish_other(self) -> None: ...

    async def purge(self) -> None: ...

    async def remove_stream(self) -> None: ...

    async def count_stored(self) -> int: ...

    async def failure(self) -> str | None: ...

    def log(self) -> AbstractAsyncContextManager[ChangeLog]: ...

    def stream(self) -> AbstractAsyncContextManager[ChangeStream]: ...


class MemoryFeedUnderTest(MemoryFeed):
    """A feed in memory."""

    def __init__(self) -> None:
        super().__init__(SHARDS)

    async def log_commit(self, *changes: LoggedChange, shard: int = 0) -> list[LoggedChange]:
        self.commit(*changes, at=self.heads[shard].commits + 1, shard=shard)
        return self.changes[-len(changes) :] if changes else []

    async def commit_unlogged(self, commits: int) -> None:
        self.commit_without_log(commits, at=self.heads[0].commits + commits + 1)

    async def drop_all(self) -> None:
        self.drop(before=self.heads[0].commits + 1)

    async def publish_other(self) -> None:
        self.stored.append(None)

    async def purge(self) -> None:
        self.trimmed = len(self.stored)

    async def remove_stream(self) -> None:
        self.stream_exists = False

    async def count_stored(self) -> int:
        return len(self.stored) - self.trimmed

    async def failure(self) -> str | None:
        return self.error


class RealFeed:
    """A feed between a database of Postgres and a stream of NATS."""

    def __init__(self, url: str, nats_url: str, jetstream: JetStreamContext) -> None:
        self._url = url
        self._broker = Broker(urls=(nats_url,))
        self._jetstream = jetstream

    async def create(self) -> None:
        """Begin with a log that is on, a cursor at its beginning, and an empty stream."""
        await self._jetstream.add_stream(StreamConfig(name=f"{EVENTS}_CHANGES", subjects=[f"{PREFIX}.>", "other"]))
        async with self._connected() as connection:
            await change_log.prepare(connection, timedelta(days=1))
            await connection.execute(
                "INSERT INTO projector_checkpoint (projection, shard, shards, stream, stream_created_at, position, "
                "rules_version, revision, changes_since, advanced_at) "
                "SELECT 'endpoint_state', number, $1, 'S', at, 0, 1, '', at, at "
                "FROM date_trunc('milliseconds', clock_timestamp()) AS at, generate_series(0, $1 - 1) AS number",
                SHARDS,
            )
            for number in range(SHARDS):
                await feed.begin(connection, PREFIX, number)

    async def log_commit(self, *changes: LoggedChange, shard: int = 0) -> list[LoggedChange]:
        async with self._connected() as connection, connection.transaction():
            (number, at) = await connection.fetchrow(
                "UPDATE projector_checkpoint SET commits = commits + 1, "
                "advanced_at = advanced_at + interval '1 millisecond' WHERE shard = $1 RETURNING commits, advanced_at",
                shard,
            )
            logged = [change._replace(shard=shard, commit_no=number, committed_at=at) for change in changes]
            rows = [(*change[:12], *(value and Raw(value) for value in change[12:])) for change in logged]
            await connection.copy_records_to_table("endpoint_change", records=rows, columns=LoggedChange._fields)
            await connection.execute("SELECT pg_notify('endpoint_change', $1)", str(number))
        return logged

    async def commit_unlogged(self, commits: int) -> None:
        async with self._connected() as connection:
            await connection.execute(
                "UPDATE projector_checkpoint SET commits = commits + $1, "
                "advanced_at = advanced_at + $1 * interval '1 millisecond', "
                "changes_since = advanced_at + ($1 + 1) * interval '1 millisecond'",
                commits,
            )

    async def drop_all(self) -> None:
        async with self._connected() as connection:
            await connection.execute("DELETE FROM endpoint_change")
            await connection.execute(
                "UPDATE projector_checkpoint SET changes_since = advanced_at + interval '1 millisecond'"
            )

    async def publish_other(self) -> None:
        await self._jetstream.publish("other", b"")

    async def purge(self) -> None:
        await self._jetstream.purge_stream(f"{EVENTS}_CHANGES")

    async def remove_stream(self) -> None:
        await self._jetstream.delete_stream(f"{EVENTS}_CHANGES")

    async def count_stored(self) -> int:
        return (await self._jetstream.stream_info(f"{EVENTS}_CHANGES")).state.messages

    async def failure(self) -> str | None:
        async with self._connected() as connection:
            error: str | None = await connection.fetchval("SELECT DISTINCT error FROM projector_feed")
        return error

    def log(self) -> AbstractAsyncContextManager[ChangeLog]:
        return feed.opened(self._url)

    def stream(self) -> AbstractAsyncContextManager[ChangeStream]:
        return change_stream.opened(self._broker, PREFIX, EVENTS)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self._url)
        try:
            await set_codecs(connection)
            yield connection
        finally:
            await connection.close()
