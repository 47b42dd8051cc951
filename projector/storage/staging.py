"""The staging tables, in which a rebuild builds the new rows.

They are unlogged, but have the constraints and indexes of the live tables, so that they reject the same values.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

from projector.domain.checkpoint import Checkpoint
from projector.domain.differences import Differences
from projector.domain.endpoint import FACETS, Change, Endpoint, FacetSet
from projector.domain.messages import Message
from projector.domain.trimmed import Trimmed
from projector.errors import DamagedRowError, DatabaseRefusedError, DatabaseUnavailableError
from projector.storage import change_log, checkpoints, comparison, corrections, dialect, locks, version
from projector.storage.checkpoints import Commit
from projector.storage.columns import FACET_COLUMNS
from projector.storage.comparison import DEAD_LETTER_TABLE, TABLE
from projector.storage.connection import Connection, connect, disconnect
from projector.storage.dialect import Dialect
from projector.storage.failures import translated
from projector.storage.loading import load, read_row
from projector.storage.store import WRITER_SETTINGS, now_ms, open_reader
from projector.storage.unit_of_work import UnitOfWork, transaction
from projector.storage.wire import set_codecs

_SEEDED_AT_ONCE = 5000
_ALL_FACETS = (1 << len(FACETS)) - 1
_COMMAND_TIMEOUT_S = 3600.0  # to detect a server that has vanished: a comparison of any table is faster
_SHOW_EVERY_S = 1.0
_RESTORE = (
    "the stream no longer holds their events: restore them from a backup or set them to null, "
    "and run `projector rebuild --accept-trimmed`"
)

_COMMIT_FAST = "SET synchronous_commit = off"
_COMMIT_SAFELY = "SET LOCAL synchronous_commit TO DEFAULT"
_CREATE_DEAD_LETTERS = f"""
CREATE UNLOGGED TABLE {DEAD_LETTER_TABLE} (LIKE dead_letter INCLUDING DEFAULTS INCLUDING INDEXES);
"""
_PARKED = "SELECT position, stored_at FROM dead_letter WHERE state = 'parked' AND stream = $1"
_SEEDS = f"""
SELECT endpoint_id, last_event_seq, last_event_at, {", ".join(facet.registers.name for facet in FACET_COLUMNS)}
FROM endpoint_state
"""


class _StagingUnitOfWork(UnitOfWork):
    """The operations on the staging tables, which have no checkpoint to hold or move."""

    _table = TABLE
    _dead_letter_table = DEAD_LETTER_TABLE

    def __init__(self, connection: Connection, dialect: Dialect, saved: set[str]) -> None:
        super().__init__(connection, dialect)
        self._saved = saved

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Write what changed, and remember which endpoints were saved."""
        await super().save(endpoints)
        self._saved.update(endpoints)

    async def log(self, changes: Sequence[Change], messages: Mapping[int, Message]) -> None:
        """Do nothing."""

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Do nothing."""


class Staging:
    """The staging tables of one rebuild; a database has one set of them."""

    def __init__(self, url: str, purpose: str, *, logs_changes: bool = False) -> None:
        """Open nothing yet; `purpose` names the connection.

        The corrections are logged if `logs_changes` says so, or if the daemon logs its changes.
        """
        self._url = url
        self._logs_changes = logs_changes
        self._purpose = purpose
        self._connection: Connection
        self._dialect: Dialect
        self._reader: Connection
        self._opened = AsyncExitStack()
        self._turn = asyncio.Lock()
        """Serialises the use of the connection by a flush and by `show`."""
        self._shown_at = 0.0
        self._compared = False
        self._saved: set[str] = set()
        """Endpoints saved since `compare`."""

    async def open(self) -> None:
        """Connect, block other rebuilds, and create empty tables; raises RebuildRunningError, DatabaseRefusedError."""
        self._connection = connection = await connect(
            self._url, purpose=self._purpose, settings=WRITER_SETTINGS, command_timeout_s=_COMMAND_TIMEOUT_S
        )
        self._opened.push_async_callback(disconnect, connection)
        with translated():
            await version.check(connection)
            await locks.keep_rebuilds_out(connection)
            await checkpoints.count_shards(connection)  # a missing row would change which shard an endpoint is in
            self._dialect = await dialect.choose(connection)
            drop = _drop(self._dialect)
            self._opened.push_async_callback(connection.execute, drop)
            await set_codecs(connection)
            await connection.execute(_COMMIT_FAST)
            await connection.execute(drop + self._dialect.create_staging(TABLE) + _CREATE_DEAD_LETTERS)
            await self._dialect.prepare_saving(connection)
        self._reader = await open_reader(self._url, self._dialect)
        self._opened.callback(self._end_reader)

    async def close(self) -> None:
        """Drop the tables and disconnect.

        What was done stays done if that fails: the next rebuild drops the tables.
        """
        with suppress(DatabaseUnavailableError, DatabaseRefusedError), translated():
            await self._opened.aclose()

    def _end_reader(self) -> None:
        self._reader.terminate()

    @property
    def connected(self) -> bool:
        """Whether the connection, and with it the lock against other rebuilds, still exists."""
        return not self._connection.is_closed()

    async def lead(self) -> bool:
        """Become the leader of every shard unless a daemon leads one; return whether it did."""
        with translated():
            shards = await checkpoints.count_shards(self._connection)
            leads = await locks.lead_all(self._connection, shards)
            if leads:
                for shard in range(shards):
                    await checkpoints.write_activity(self._connection, shard, now_ms())
        return leads

    async def show(self, position: int, target: int) -> None:
        """Make the progress part of the name of the connection, at most once a second."""
        if time.monotonic() - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = time.monotonic()
            async with self._turn:
                with translated():
                    name = f"projector {self._purpose} {position}/{target}"
                    await self._connection.execute("SELECT set_config('application_name', $1, false)", name)

    async def checkpoints(self) -> list[Checkpoint]:
        """Return the live checkpoints, in the order of the shards; none if nothing was ever folded."""
        with translated():
            return await checkpoints.read_all(self._connection)

    async def parked(self, stream: str) -> set[tuple[int, int]]:
        """Return position and stored time (Unix ms) of the parked dead letters."""
        with translated():
            return {(position, stored_at) for position, stored_at in await self._connection.fetch(_PARKED, stream)}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Begin a transaction on the staging tables."""
        saved = self._saved if self._compared else set[str]()
        async with self._turn, _transaction(self._connection, self._dialect, saved) as work:
            yield work

    async def load(self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """Return working copies of endpoints as if uncommitted ones were saved."""
        try:
            with translated():
                return await load(self._reader, self._dialect, TABLE, needed, uncommitted)
        except DatabaseUnavailableError:
            # While all rows fit in the cache this connection is idle, and a proxy may have closed it.
            self._reader.terminate()
            self._reader = await open_reader(self._url, self._dialect)
            with translated():
                return await load(self._reader, self._dialect, TABLE, needed, uncommitted)

    async def seed(self, trimmed: Trimmed) -> None:
        """Copy the state of the live table that came from messages that have left the stream; raises DamagedRowError.

        Values overwritten since then are lost here; the replay restores them.
        """
        async with self.transaction() as work:
            seeds: dict[str, Endpoint] = {}
            async for row in self._connection.cursor(_SEEDS, prefetch=_SEEDED_AT_ONCE):
                try:
                    seed = read_row(_ALL_FACETS, *row).kept(trimmed)
                except DamagedRowError as error:
                    raise DamagedRowError(error.endpoint_id, error.facet, error.evidence, _RESTORE) from error
                if seed is not None:
                    seeds[row[0]] = seed
                if len(seeds) >= _SEEDED_AT_ONCE:
                    await work.save(seeds)
                    seeds.clear()
                    await self._dialect.forget_saved(self._connection)
            await work.save(seeds)

    async def clear(self) -> None:
        """Empty the tables."""
        with translated():
            await self._connection.execute(f"TRUNCATE {TABLE}, {DEAD_LETTER_TABLE}")

    async def compare(self) -> None:
        """Find the rows that may differ; endpoints that are saved later are compared in the final transaction."""
        self._saved.clear()
        self._compared = True
        async with transaction(self._connection, lambda connection: connection) as connection:
            await comparison.compare(connection, self._dialect)

    @asynccontextmanager
    async def finish(self) -> AsyncIterator["FinalTransaction"]:
        """Begin the transaction in which the live table is locked, compared and changed."""
        async with (
            self._turn,
            transaction(self._connection, self._final) as final,
        ):
            yield final

    def _final(self, connection: Connection) -> "FinalTransaction":
        return FinalTransaction(connection, self._dialect, self._saved, logs_changes=self._logs_changes)


class _Savepoints:
    """Transactions on the staging tables within another transaction."""

    def __init__(self, connection: Connection, dialect: Dialect, saved: set[str]) -> None:
        self._connection = connection
        self._dialect = dialect
        self._saved = saved

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        return _transaction(self._connection, self._dialect, self._saved)


def _transaction(connection: Connection, dialect: Dialect, saved: set[str]) -> AbstractAsyncContextManager[UnitOfWork]:
    return transaction(connection, lambda connection: _StagingUnitOfWork(connection, dialect, saved))


def _drop(dialect: Dialect) -> str:
    """Return the statement that drops the tables of a rebuild."""
    return f"DROP TABLE IF EXISTS {', '.join((TABLE, DEAD_LETTER_TABLE, *dialect.working_tables))};"


class FinalTransaction:
    """The operations of the last transaction of a rebuild."""

    def __init__(self, connection: Connection, dialect: Dialect, saved: set[str], *, logs_changes: bool) -> None:
        """Use a connection; `saved` are the endpoints saved since `Staging.compare`."""
        self._connection = connection
        self._dialect = dialect
        self._saved = saved
        self._logs_changes = logs_changes
        self._commits: list[Commit]
        self.savepoints = _Savepoints(connection, dialect, saved)
        """Transactions on the staging tables, which are savepoints of this one."""

    async def hold(self) -> list[Checkpoint]:
        """Lock the live checkpoints, so that no daemon folds until the transaction ends, and return them."""
        found, self._commits = await checkpoints.hold_all(self._connection)
        self._logs_changes |= any(commit.log_is_on for commit in self._commits)
        await self._dialect.settle(self._connection)
        return found

    async def differences(self, *, show: int, endpoint_id: str | None) -> Differences:
        """Compare the live table with what the stream implies; return up to `show` rows, or the row of one endpoint."""
        return await comparison.differences(
            self._connection, self._dialect, self._saved, show=show, endpoint_id=endpoint_id
        )

    async def apply(self, after: Sequence[Checkpoint], retried: Collection[int]) -> None:
        """Change the rows that differ, settle the dead letters at the positions `retried`, move the checkpoints."""
        await self._connection.execute(_COMMIT_SAFELY)
        if self._logs_changes:
            await change_log.make_partitions(self._connection)
            await corrections.log(self._connection, self._commits)
        await comparison.apply(self._connection, after[0].stream, retried)
        for checkpoint, commit in zip(after, self._commits, strict=True):
            await checkpoints.replace(self._connection, checkpoint, commit, logged=self._logs_changes)
