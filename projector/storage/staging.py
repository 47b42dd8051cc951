"""The staging tables, in which a rebuild builds the table anew, and how they are compared with the live ones.

They are unlogged, but have the constraints and indexes of the live tables, so that they reject the same values.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import asyncpg

from projector.domain.checkpoint import Checkpoint
from projector.domain.differences import Differences, RowDifference
from projector.domain.endpoint import FACETS, Endpoint, FacetSet
from projector.errors import DamagedRowError, DatabaseRefusedError, DatabaseUnavailableError
from projector.storage import checkpoints, locks, statements, version
from projector.storage.columns import FACET_COLUMNS
from projector.storage.connection import Connection, connect, disconnect
from projector.storage.failures import translated
from projector.storage.loading import load, read_row
from projector.storage.store import WRITER_SETTINGS, now_ms, open_reader
from projector.storage.tables import endpoint_state
from projector.storage.unit_of_work import UnitOfWork, transaction
from projector.storage.wire import decode_json, set_codecs

_TABLE = "endpoint_state_rebuild"
_DEAD_LETTER_TABLE = "dead_letter_rebuild"
_, *_OTHERS = (column.name for column in endpoint_state.columns)
_SEEDED_AT_ONCE = 5000
_ALL_FACETS = (1 << len(FACETS)) - 1
_SETTINGS = {**WRITER_SETTINGS, "synchronous_commit": "off"}
_COMMAND_TIMEOUT_S = 3600.0  # to detect a server that has vanished: comparing takes less for any table
_SHOW_EVERY_S = 1.0
_LOST = "the stream no longer says what they were: first restore them, or set them to null"


def _each(template: str) -> str:
    """Return the template for each column but the key."""
    return ", ".join(template.format(name=name) for name in _OTHERS)


_NO_TRANSACTION_TIMEOUT = """
SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'
"""
"""Servers before 17 do not have it, and refuse a connection that asks for it."""
_DROP = f"DROP TABLE IF EXISTS {_TABLE}, {_DEAD_LETTER_TABLE};"
_PREPARE = f"""
{_DROP}
CREATE UNLOGGED TABLE {_TABLE} (LIKE endpoint_state INCLUDING ALL EXCLUDING COMMENTS) WITH (fillfactor = 80);
CREATE UNLOGGED TABLE {_DEAD_LETTER_TABLE} (LIKE dead_letter INCLUDING DEFAULTS INCLUDING INDEXES);
CREATE TEMPORARY TABLE endpoint_candidate (endpoint_id text PRIMARY KEY);
"""
_PARKED = "SELECT position, stored_at FROM dead_letter WHERE state = 'parked' AND stream = $1"
_SEEDS = f"""
SELECT endpoint_id, last_event_seq, last_event_at, {", ".join(facet.registers.name for facet in FACET_COLUMNS)}
FROM endpoint_state
"""

_DIFFERS = f"""
(found.endpoint_id, {_each("found.{name}")}) IS DISTINCT FROM (implied.endpoint_id, {_each("implied.{name}")})
"""
# Comparing everything needs plans that read everything.
_COMPARE = f"""
SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_seqscan = on;
DELETE FROM endpoint_candidate;
INSERT INTO endpoint_candidate
SELECT endpoint_id FROM endpoint_state AS found FULL JOIN {_TABLE} AS implied USING (endpoint_id) WHERE {_DIFFERS}
"""
_ADD_CANDIDATES = "INSERT INTO endpoint_candidate SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
_BOTH = f"LEFT JOIN endpoint_state AS found USING (endpoint_id) LEFT JOIN {_TABLE} AS implied USING (endpoint_id)"
_FIND_DIFFERENCES = f"""
CREATE TEMPORARY TABLE endpoint_difference ON COMMIT DROP AS
SELECT endpoint_id,
       CASE WHEN found.endpoint_id IS NULL THEN 'missing'
            WHEN implied.endpoint_id IS NULL THEN 'extra'
            ELSE 'different' END AS kind,
       array_remove(ARRAY[
           {_each("CASE WHEN found.{name} IS DISTINCT FROM implied.{name} THEN '{name}' END")}
       ], NULL) AS columns
FROM endpoint_candidate {_BOTH}
WHERE {_DIFFERS}
"""
_COUNT_ROWS = f"""
SELECT (SELECT count(*) FROM {_TABLE}) + count(*) FILTER (WHERE kind = 'extra') AS compared,
       count(*) FILTER (WHERE kind = 'missing') AS missing,
       count(*) FILTER (WHERE kind = 'extra') AS extra,
       count(*) FILTER (WHERE kind = 'different') AS different
FROM endpoint_difference
"""
_COUNT_COLUMNS = """
SELECT name, count(*) FROM endpoint_difference, unnest(columns) AS name
WHERE kind = 'different' GROUP BY name ORDER BY count(*) DESC, name
"""
_SHOW = f"""
SELECT endpoint_id, kind, columns, to_jsonb(found) AS found, to_jsonb(implied) AS implied
FROM endpoint_difference {_BOTH}
WHERE $1::text IS NULL OR endpoint_id = $1
ORDER BY endpoint_id LIMIT $2
"""

_IMPLIED = f"FROM endpoint_difference AS difference JOIN {_TABLE} AS implied USING (endpoint_id) WHERE kind ="
_APPLY = f"""
DELETE FROM endpoint_state USING endpoint_difference AS difference
WHERE difference.kind = 'extra' AND endpoint_state.endpoint_id = difference.endpoint_id;

UPDATE endpoint_state AS found SET {_each("{name} = implied.{name}")}
{_IMPLIED} 'different' AND found.endpoint_id = difference.endpoint_id;

INSERT INTO endpoint_state (endpoint_id, {_each("{name}")})
SELECT endpoint_id, {_each("implied.{name}")} {_IMPLIED} 'missing';
"""
_RESOLVE_DEAD_LETTERS = f"""
UPDATE dead_letter SET state = 'resolved', closed_at = now()
WHERE state = 'parked' AND stream = $1 AND position = ANY ($2::bigint[])
  AND NOT EXISTS (
      SELECT FROM {_DEAD_LETTER_TABLE} AS again
      WHERE again.stream = dead_letter.stream AND again.position = dead_letter.position
  )
"""
_PARK_DEAD_LETTERS = f"""
INSERT INTO dead_letter AS known SELECT * FROM {_DEAD_LETTER_TABLE}
ON CONFLICT (stream, position) DO UPDATE
SET state = 'parked', closed_at = NULL, reason = excluded.reason, detail = excluded.detail,
    subject = excluded.subject, headers = excluded.headers, payload = excluded.payload, stored_at = excluded.stored_at
WHERE known.state <> 'discarded' OR known.stored_at <> excluded.stored_at
"""


class _StagingUnitOfWork(UnitOfWork):
    """The verbs on the staging tables, which have no checkpoint to hold or move."""

    _table = _TABLE
    _dead_letter_table = _DEAD_LETTER_TABLE

    def __init__(self, connection: Connection, saved: set[str]) -> None:
        super().__init__(connection)
        self._saved = saved

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Write what changed, and remember which endpoints were saved."""
        await super().save(endpoints)
        self._saved.update(endpoints)

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Do nothing."""


class Staging:
    """The staging tables of one rebuild; a database has them once."""

    def __init__(self, url: str, purpose: str) -> None:
        """Open nothing yet; `purpose` names the connection."""
        self._url = url
        self._purpose = purpose
        self._connection: Connection
        self._reader: Connection
        self._opened = AsyncExitStack()
        self._turn = asyncio.Lock()
        """The connection serves one at a time: a flush of what is loaded ahead, or the progress."""
        self._shown_at = 0.0
        self._compared = False
        self._saved: set[str] = set()
        """Endpoints saved since `compare`."""

    async def open(self) -> None:
        """Connect, keep other rebuilds out, and create empty tables; raises RebuildRunningError."""
        self._connection = connection = await connect(
            self._url, purpose=self._purpose, settings=_SETTINGS, command_timeout_s=_COMMAND_TIMEOUT_S
        )
        self._opened.push_async_callback(disconnect, connection)
        with translated():
            await version.check(connection)
            await locks.keep_rebuilds_out(connection)
            self._opened.push_async_callback(connection.execute, _DROP)
            await set_codecs(connection)
            await connection.execute(_PREPARE)
            await connection.execute(statements.CREATE_CHANGES)
            await connection.execute(_NO_TRANSACTION_TIMEOUT)
        self._reader = await open_reader(self._url)
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
        """Whether the connection, and with it the lock that keeps other rebuilds out, is still there."""
        return not self._connection.is_closed()

    async def lead(self) -> bool:
        """Become the leader unless a daemon leads; return whether it did."""
        with translated():
            leads = await locks.lead(self._connection)
            if leads:
                await checkpoints.write_activity(self._connection, now_ms())
        return leads

    async def show(self, position: int, target: int) -> None:
        """Publish the progress in the name of the connection, at most once a second."""
        if time.monotonic() - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = time.monotonic()
            async with self._turn:
                with translated():
                    name = f"projector {self._purpose} {position}/{target}"
                    await self._connection.execute("SELECT set_config('application_name', $1, false)", name)

    async def checkpoint(self) -> Checkpoint | None:
        """Return the live checkpoint."""
        with translated():
            return await checkpoints.read(self._connection)

    async def parked(self, stream: str) -> set[tuple[int, int]]:
        """Return position and stored time (Unix ms) of the parked dead letters."""
        with translated():
            return {(position, stored_at) for position, stored_at in await self._connection.fetch(_PARKED, stream)}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Begin a transaction on the staging tables."""
        async with self._turn, _transaction(self._connection, self._saved if self._compared else set()) as work:
            yield work

    async def load(self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """Return working copies of endpoints as if uncommitted ones were saved."""
        with translated():
            try:
                return await load(self._reader, _TABLE, needed, uncommitted)
            except (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError, OSError):
                # While everything is in the cache this connection is idle, and a proxy may have cut it.
                self._reader.terminate()
                self._reader = await open_reader(self._url)
                return await load(self._reader, _TABLE, needed, uncommitted)

    async def seed(self, first: int) -> None:
        """Begin with what the live table knows from before a position; raises DamagedRowError.

        Values overwritten since then are lost here; the replay restores them.
        """
        async with self.transaction() as work:
            seeds: dict[str, Endpoint] = {}
            async for row in self._connection.cursor(_SEEDS, prefetch=_SEEDED_AT_ONCE):
                try:
                    seed = read_row(_ALL_FACETS, *row).before(first)
                except DamagedRowError as error:
                    evidence = f"{error.evidence}; {_LOST}"
                    raise DamagedRowError(error.endpoint_id, error.facet, evidence) from error
                if seed is not None:
                    seeds[row[0]] = seed
                if len(seeds) >= _SEEDED_AT_ONCE:
                    await work.save(seeds)
                    seeds.clear()
                    # Otherwise each part is found by a scan of all parts before it.
                    await self._connection.execute("TRUNCATE endpoint_change")
            await work.save(seeds)

    async def clear(self) -> None:
        """Empty the tables."""
        with translated():
            await self._connection.execute(f"TRUNCATE {_TABLE}, {_DEAD_LETTER_TABLE}")

    async def compare(self) -> None:
        """Find the rows that may differ; endpoints that are saved later are compared in the final transaction."""
        self._saved.clear()
        self._compared = True
        async with transaction(self._connection, UnitOfWork):
            await self._connection.execute(_COMPARE)

    @asynccontextmanager
    async def finish(self) -> AsyncIterator["FinalTransaction"]:
        """Begin the transaction in which the live table is locked, compared and changed."""
        async with (
            self._turn,
            transaction(self._connection, lambda connection: FinalTransaction(connection, self._saved)) as final,
        ):
            yield final


class _Savepoints:
    """Transactions on the staging tables within another transaction."""

    def __init__(self, connection: Connection, saved: set[str]) -> None:
        self._connection = connection
        self._saved = saved

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        return _transaction(self._connection, self._saved)


def _transaction(connection: Connection, saved: set[str]) -> AbstractAsyncContextManager[UnitOfWork]:
    return transaction(connection, lambda connection: _StagingUnitOfWork(connection, saved))


class FinalTransaction:
    """The verbs of the last transaction of a rebuild."""

    def __init__(self, connection: Connection, saved: set[str]) -> None:
        """Use a connection; `saved` are the endpoints saved since `Staging.compare`."""
        self._connection = connection
        self._saved = saved
        self.savepoints = _Savepoints(connection, saved)
        """Transactions on the staging tables, which are savepoints of this one."""

    async def hold(self) -> Checkpoint | None:
        """Lock the live checkpoint, so that no daemon folds until the transaction ends, and return it."""
        return await checkpoints.read(self._connection, hold=True)

    async def differences(self, *, show: int, endpoint_id: str | None) -> Differences:
        """Compare the live table with what the stream implies; show so many rows, or the row of one endpoint."""
        connection = self._connection
        await connection.execute(_ADD_CANDIDATES, list(self._saved))
        await connection.execute(_FIND_DIFFERENCES)
        (counts,) = await connection.fetch(_COUNT_ROWS)
        by_column = {row[0]: row[1] for row in await connection.fetch(_COUNT_COLUMNS)}
        shown = await connection.fetch(_SHOW, endpoint_id, 1 if endpoint_id is not None else show)
        return Differences(**dict(counts.items()), by_column=by_column, shown=list(map(_row_difference, shown)))

    async def apply(self, checkpoint: Checkpoint, retried: Collection[int]) -> None:
        """Change the rows that differ, settle the dead letters at the positions `retried`, move the checkpoint."""
        await self._connection.execute(_APPLY)
        await self._connection.execute(_RESOLVE_DEAD_LETTERS, checkpoint.stream, retried)
        await self._connection.execute(_PARK_DEAD_LETTERS)
        await checkpoints.replace(self._connection, checkpoint)


def _row_difference(row: asyncpg.Record) -> RowDifference:
    found, implied = (decode_json(row[side] or b"{}") for side in ("found", "implied"))
    columns = {name: (found.get(name), implied.get(name)) for name in row["columns"]}
    return RowDifference(row["endpoint_id"], row["kind"], columns)
