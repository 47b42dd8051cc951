"""Reads the logs of changes to publish them, and keeps the cursors of what is published."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg

from projector.domain.changes import ChangeId, FeedCursor, LoggedChange, Page, Place
from projector.errors import FeedMovedError
from projector.storage import dialect, version
from projector.storage.change_log import CHANNEL
from projector.storage.checkpoints import PROJECTION
from projector.storage.connection import Connection, connect
from projector.storage.dialect import Dialect
from projector.storage.failures import translated
from projector.storage.wire import set_codecs

_SETTINGS: Mapping[str, str] = {
    # The log is read in the order of an index, whatever the statistics of a new partition say.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    # The stream tells how far publishing came if a crash of the database moves the cursor back.
    "synchronous_commit": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "idle_session_timeout": "0",
    "row_security": "off",
    "statement_timeout": "5min",
}
_COMMAND_TIMEOUT_S = 310.0
_PAGE = 1000
_MARGIN_MS = 3_600_000
"""Partitions are read from a little earlier on, in case a clock has stepped back."""

# A leader that publishes writes the cursor before it folds: what it folds is published, and nothing before.
_BEGIN = """
INSERT INTO projector_feed (projection, shard, prefix, commit_no, committed_at)
SELECT projection, shard, $3, commits, coalesce(greatest(changes_since, advanced_at), clock_timestamp())
FROM projector_checkpoint WHERE projection = $1 AND shard = $2
ON CONFLICT (projection, shard) DO UPDATE SET prefix = excluded.prefix WHERE projector_feed.prefix <> excluded.prefix
"""
_CURSORS = """
SELECT shard, commit_no, position, endpoint_id, facet, committed_at, stream, stream_seq, lost_commits
FROM projector_feed WHERE projection = $1 ORDER BY shard
"""
_MOVE = """
UPDATE projector_feed
SET commit_no = $7, position = $8, endpoint_id = $9, facet = $10, committed_at = $11, stream = $12, stream_seq = $13,
    lost_commits = $14, lost_at = CASE WHEN $14 > lost_commits THEN clock_timestamp() ELSE lost_at END,
    advanced_at = clock_timestamp()
WHERE projection = $1 AND shard = $2
  AND (commit_no, position, endpoint_id, facet) IS NOT DISTINCT FROM ($3::bigint, $4::bigint, $5::text, $6::text)
"""
_NOTE = """
UPDATE projector_feed SET error = $2, error_since = CASE WHEN $2::text IS NOT NULL THEN coalesce(error_since, now()) END
WHERE projection = $1 AND error IS DISTINCT FROM $2
"""
_HEAD = "SELECT commits, advanced_at, changes_since FROM projector_checkpoint WHERE projection = $1 AND shard = $2"
_SINCE = "SELECT changes_since FROM projector_checkpoint WHERE projection = $1 AND shard = $2"
# Commits are numbered in the order of their times, so the times rule partitions out.
_ROWS = f"""
SELECT {", ".join(LoggedChange._fields)}
FROM endpoint_change
WHERE shard = $1 AND committed_at >= $2 AND commit_no BETWEEN $3 AND $4
  AND (commit_no > $3 OR (coalesce(position, 0), endpoint_id COLLATE "C", facet COLLATE "C") > ($5, $6, $7))
  AND verdict IN ('applied', 'corrected')
ORDER BY commit_no, coalesce(position, 0), endpoint_id COLLATE "C", facet COLLATE "C"
"""
# The first commit of the part of the log that is complete, and the last one before it.
_FIRST = """
SELECT commit_no, committed_at FROM endpoint_change
WHERE shard = $1 AND committed_at >= $2 AND commit_no BETWEEN $3 AND $4 ORDER BY commit_no LIMIT 1
"""
_LAST = """
SELECT commit_no FROM endpoint_change
WHERE shard = $1 AND committed_at >= $2 AND commit_no BETWEEN $3 AND $4 ORDER BY commit_no DESC LIMIT 1
"""
_HOLDS = """
SELECT true FROM endpoint_change
WHERE shard = $1 AND committed_at = $2 AND commit_no = $3 AND coalesce(position, 0) = $4
  AND endpoint_id = $5 AND facet = $6
"""


async def begin(connection: Connection, prefix: str, shard: int = 0) -> None:
    """Write the first cursor of a shard, at the end of its log, unless it has one or nothing was ever folded."""
    await connection.execute(_BEGIN, PROJECTION, shard, prefix)


class ChangeLog:
    """The logs of all shards, over one connection.

    Every method raises DatabaseUnavailableError or DatabaseRefusedError if Postgres cannot do it.
    """

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        """Use a connection with the codecs of `wire`, prepared for the dialect."""
        self._connection = connection
        self._dialect = dialect
        self._news = asyncio.Event()
        self._rest_after: dict[int, Place] = {}
        """By shard whose large commit is being fetched: where the rest of that commit begins."""

    async def listen(self) -> None:
        """Begin to listen to the notifications of commits."""
        with translated():
            await self._connection.add_listener(CHANNEL, lambda *_: self.wake())
        self._connection.add_termination_listener(lambda _: self.wake())

    async def wait(self, timeout_s: float) -> None:
        """Return at the notification of a commit, or after a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        self._news.clear()

    def wake(self) -> None:
        """Make `wait` return."""
        self._news.set()

    async def cursors(self) -> Sequence[FeedCursor]:
        """Return the cursors, in the order of the shards; a shard has none until a leader writes it with `begin`."""
        with translated():
            return [_cursor(row) for row in await self._connection.fetch(_CURSORS, PROJECTION)]

    async def move(self, moves: Sequence[tuple[FeedCursor, FeedCursor]]) -> None:
        """Move cursors by compare-and-set, each from the first to the second, all or none; raises FeedMovedError."""
        with translated():
            async with self._connection.transaction():
                for before, after in moves:
                    values = (*_columns(before.place), *_columns(after.place), *after[2:])
                    if await self._connection.execute(_MOVE, PROJECTION, before.shard, *values) != "UPDATE 1":
                        raise FeedMovedError("another projector has moved the cursor of the published changes")

    async def note(self, error: str | None) -> None:
        """Write why nothing is published, for users to read; None: publishing works."""
        with translated():
            await self._connection.execute(_NOTE, PROJECTION, error)

    async def holds(self, change: ChangeId) -> bool:
        """Return whether the log has a change."""
        place = change.place
        if place.change is None:
            return False
        with translated():
            found = await self._connection.fetchval(
                _HOLDS, change.shard, change.committed_at, place.commit_no, *place.change
            )
        return bool(found)

    async def read(self, cursor: FeedCursor) -> Page:
        """Return what follows a cursor: about a thousand changes at most, or a gap."""
        shard, place = cursor[:2]
        with translated():
            if self._rest_after.get(shard) == place:
                return await self._read_rest(cursor)
            await self._drop_rest(shard)
            head = await self._connection.fetchrow(_HEAD, PROJECTION, shard)
            commits, advanced_at, since = head or (0, 0, None)
            if commits <= place.commit_no and place.change is None:
                # Days that were dropped meanwhile had nothing to publish.
                return Page((), place, max(cursor.committed_at, since or 0), complete=True)
            await self._dialect.settle(self._connection)
            # Every commit up to that of the checkpoint is visible by now.
            changes = _changes(await self._connection.fetch(f"{_ROWS} LIMIT {_PAGE}", *_following(cursor, commits)))
            # Asked after the rows: a day may be dropped between two queries.
            since = await self._connection.fetchval(_SINCE, PROJECTION, shard)
            if since is not None and since > cursor.committed_at:
                if before := [change for change in changes if change.committed_at < since]:
                    return Page(before, before[-1].place, before[-1].committed_at)
                if gap := await self._gap(cursor, since, commits, advanced_at):
                    return gap
            if len(changes) < _PAGE:
                return Page(changes, Place(commits), advanced_at, complete=True)
            last = changes[-1]
            if changes[0].commit_no == last.commit_no:
                await self._hold_rest(last)
            return Page(changes, last.place, last.committed_at)

    async def _gap(self, cursor: FeedCursor, since: int, commits: int, advanced_at: int) -> Page | None:
        """Return a page of the commits that are missing where the log begins anew; None if none are.

        Of the commits before, nothing is left to publish.
        """
        begun = cursor.place.commit_no + (cursor.place.change is None)
        found = await self._connection.fetchrow(_FIRST, cursor.shard, since, begun, commits)
        first, at = found or (commits + 1, max(advanced_at, since))
        last = await self._connection.fetchval(_LAST, cursor.shard, cursor.committed_at - _MARGIN_MS, begun, first - 1)
        lost = first - (begun if last is None else last + 1)
        return Page((), Place(first - 1), at, lost_commits=lost) if lost else None

    async def _hold_rest(self, last: LoggedChange) -> None:
        """Let the server keep what follows a change in its commit.

        It does so without a transaction: a commit of millions of corrections is sorted once, and no vacuum waits.
        """
        after = FeedCursor(last.shard, last.place, last.committed_at)
        await self._connection.execute(
            f"DECLARE rest_{last.shard} NO SCROLL CURSOR WITH HOLD FOR {_ROWS}", *_following(after, last.commit_no)
        )
        self._rest_after[last.shard] = last.place

    async def _read_rest(self, cursor: FeedCursor) -> Page:
        changes = _changes(await self._connection.fetch(f"FETCH {_PAGE} FROM rest_{cursor.shard}"))
        if len(changes) < _PAGE:
            await self._drop_rest(cursor.shard)
            return Page(changes, Place(cursor.place.commit_no), cursor.committed_at)
        self._rest_after[cursor.shard] = changes[-1].place
        return Page(changes, changes[-1].place, cursor.committed_at)

    async def _drop_rest(self, shard: int) -> None:
        if self._rest_after.pop(shard, None) is not None:
            await self._connection.execute(f"CLOSE rest_{shard}")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[ChangeLog]:
    """Connect to the log for the length of a block; raises NotMigratedError."""
    connection = await connect(url, purpose="publish", settings=_SETTINGS, command_timeout_s=_COMMAND_TIMEOUT_S)
    try:
        with translated():
            await version.check(connection)
            await set_codecs(connection)
            chosen = await dialect.choose(connection)
        log = ChangeLog(connection, chosen)
        await log.listen()
        yield log
    finally:
        connection.terminate()


def _changes(rows: Sequence[asyncpg.Record]) -> Sequence[LoggedChange]:
    return [LoggedChange(*row) for row in rows]


def _cursor(row: asyncpg.Record) -> FeedCursor:
    shard, commit_no, position, endpoint_id, facet, *others = row
    place = Place(commit_no, None if endpoint_id is None else (position, endpoint_id, facet))
    return FeedCursor(shard, place, *others)


def _columns(place: Place) -> tuple[int, int | None, str | None, str | None]:
    return (place.commit_no, *(place.change or (None, None, None)))


def _following(cursor: FeedCursor, last_commit: int) -> tuple[int, int, int, int, int, str, str]:
    """Return the arguments of `_ROWS`."""
    commit_no, change = cursor.place
    first, after = (commit_no + 1, (-1, "", "")) if change is None else (commit_no, change)
    return (cursor.shard, cursor.committed_at - _MARGIN_MS, first, last_commit, *after)
