"""Lists, retries and discards dead letters. No dead letter is ever deleted."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from projector.domain.checkpoint import Checkpoint
from projector.domain.dead_letters import ListedDeadLetter, StoredDeadLetter
from projector.domain.endpoint import Change, Endpoint
from projector.domain.messages import DeadLetter, Message, Selection
from projector.domain.shards import shard_of
from projector.errors import CheckpointMovedError, NoDeadLetterError, RetryTooEarlyError
from projector.storage import change_log, checkpoints, dialect, locks, version
from projector.storage.checkpoints import Commit
from projector.storage.connection import Connection, connect, disconnect
from projector.storage.dialect import Dialect
from projector.storage.failures import translated
from projector.storage.store import WRITER_SETTINGS
from projector.storage.text import unescape
from projector.storage.unit_of_work import UnitOfWork, transaction
from projector.storage.wire import decode_json, set_codecs

_SELECTED = """
WHERE stream = $1 AND state = 'parked'
  AND ($2::bigint[] IS NULL OR position = ANY ($2)) AND ($3::text IS NULL OR reason = $3)
"""
_LIST = f"""
SELECT position, reason, detail, subject, length(payload), stored_at, parked_at, attempts, state
FROM dead_letter {_SELECTED} ORDER BY position
"""
_SHOW = f"SELECT {', '.join(StoredDeadLetter._fields)} FROM dead_letter WHERE stream = $1 AND position = $2"
_DISCARD = f"""
UPDATE dead_letter SET state = 'discarded', closed_at = now(), note = $4 {_SELECTED} RETURNING position
"""
_FETCH = "SELECT stored_at, subject, payload, headers FROM dead_letter WHERE stream = $1 AND position = $2"
_RESOLVE = """
UPDATE dead_letter SET state = 'resolved', closed_at = now(), attempts = attempts + 1
WHERE stream = $1 AND position = $2
"""


async def listed(url: str, stream: str) -> list[ListedDeadLetter]:
    """Return the parked dead letters in stream order."""
    async with _opened(url, stream) as connection:
        return [ListedDeadLetter(*row) for row in await connection.fetch(_LIST, stream, None, None)]


async def shown(url: str, stream: str, position: int) -> StoredDeadLetter:
    """Return one dead letter in any state; raises NoDeadLetterError."""
    async with _opened(url, stream) as connection:
        row = await connection.fetchrow(_SHOW, stream, position)
    if row is None:
        raise NoDeadLetterError(position)
    return StoredDeadLetter(*row)._replace(headers=row["headers"] and decode_json(row["headers"]))


async def discard(url: str, stream: str, selection: Selection, note: str) -> int:
    """Close dead letters with a note that says why, and return how many; raises NoDeadLetterError."""
    async with _opened(url, stream, settings=version.READ_WRITE) as connection, connection.transaction():
        rows = await connection.fetch(_DISCARD, stream, list(selection.positions) or None, selection.reason, note)
        closed = {row[0] for row in rows}
        if missing := set(selection.positions) - closed:
            raise NoDeadLetterError(min(missing))
    return len(closed)


@asynccontextmanager
async def _opened(
    url: str, stream: str, *, settings: Mapping[str, str] = version.READ_ONLY
) -> AsyncIterator[Connection]:
    """Open a connection to tables that were built from a stream; raises OtherStreamError."""
    async with version.opened(url, purpose="dead letters", settings=settings) as connection:
        await checkpoints.check_stream(connection, stream)
        yield connection


class Retry:
    """The database's side of a retry: rows change as for a live message, but the checkpoint's position does not."""

    def __init__(self, url: str, stream: str, *, logs_changes: bool = False) -> None:
        """Open nothing yet; the changes are logged if `logs_changes` says so, or if the daemon logs its own."""
        self._url = url
        self._logs_changes = logs_changes
        self._stream = stream
        self._connection: Connection
        self._dialect: Dialect
        self._opened = AsyncExitStack()

    async def open(self) -> None:
        """Connect, and block rebuilds, which would not see the changes of a retry; raises RebuildRunningError."""
        self._connection = connection = await connect(self._url, purpose="retry", settings=WRITER_SETTINGS)
        self._opened.push_async_callback(disconnect, connection)
        with translated():
            await version.check(connection)
            await locks.keep_rebuilds_out(connection, shared=True)
            await set_codecs(connection)
            await checkpoints.check_stream(connection, self._stream)
            self._dialect = await dialect.choose(connection)
            await self._dialect.prepare_saving(connection)
            if self._logs_changes or await change_log.is_on(connection):
                await change_log.make_partitions(connection)

    async def close(self) -> None:
        """Disconnect."""
        await self._opened.aclose()

    async def count_shards(self) -> int:
        """Return the number of shards, which stays the same during a retry; raises DatabaseRefusedError."""
        with translated():
            return await checkpoints.count_shards(self._connection)

    async def positions(self, selection: Selection) -> list[int]:
        """Return the positions of the selected dead letters, in stream order."""
        positions, reason = list(selection.positions) or None, selection.reason
        with translated():
            return [row[0] for row in await self._connection.fetch(_LIST, self._stream, positions, reason)]

    async def message(self, position: int) -> Message:
        """Return the message of a dead letter as it was received; raises NoDeadLetterError."""
        with translated():
            row = await self._connection.fetchrow(_FETCH, self._stream, position)
        if row is None:
            raise NoDeadLetterError(position)
        stored_at, subject, payload, headers = row
        return Message(position, stored_at, unescape(subject), payload, headers and decode_json(headers))

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a transaction on `endpoint_state` that resolves one dead letter."""
        work_of = partial(_RetryUnitOfWork, dialect=self._dialect, logs_changes=self._logs_changes)
        return transaction(self._connection, work_of)


class _RetryUnitOfWork(UnitOfWork):
    """The operations for a single message that the checkpoint has passed."""

    def __init__(self, connection: Connection, dialect: Dialect, *, logs_changes: bool) -> None:
        super().__init__(connection, dialect, logs_changes=logs_changes)
        self._parked_again = False
        self._saved = False
        self._commits: list[Commit] = []

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Lock the live checkpoints, which do not move: the message may name endpoints of several shards."""
        found, self._commits = await checkpoints.hold_all(self._connection)
        self._logs_changes |= any(commit.log_is_on for commit in self._commits)
        if not found or found[0].stream != checkpoint.stream:
            raise CheckpointMovedError(expected=checkpoint.position, found=None)
        for one in found:
            one.rules.check(checkpoint.rules)
            if one.position <= checkpoint.position:
                raise RetryTooEarlyError(position=checkpoint.position + 1, folded=one.position)
        await self._dialect.settle(self._connection)

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Write what changed; if the message is parked again, that is what the other shards accept of it."""
        await super().save(endpoints)
        self._saved = bool(endpoints)

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        """Count the attempt."""
        await super().park(stream, dead_letters)
        self._parked_again = True

    async def log(self, changes: Sequence[Change], messages: Mapping[int, Message]) -> None:
        """Write what was done to each facet, if changes are logged."""
        if not self._logs_changes:
            return
        for commit in self._commits:
            ours = [one for one in changes if shard_of(one.endpoint_id, len(self._commits)) == commit.shard]
            if ours:
                await change_log.write_retried(self._connection, commit, ours, messages)

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Resolve the dead letter unless it was parked again."""
        if not self._parked_again:
            await self._connection.execute(_RESOLVE, before.stream, after.position)
        if self._saved or not self._parked_again:
            for commit in self._commits:
                await checkpoints.count_change(self._connection, commit, logged=self._logs_changes)
