"""Where a rebuild builds the table anew, beside the one that everybody reads, and how the two are compared.

The staging tables are unlogged: they are worth nothing after a crash, and the next rebuild drops them.
They object to what the live table objects to, since they have its constraints and indexes.
"""

import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from msgspec import DecodeError

from projector.domain.checkpoint import Checkpoint
from projector.domain.differences import DifferenceKind, Differences, RowDifference
from projector.domain.endpoint import FACETS, Endpoint, FacetSet
from projector.errors import DamagedRowError
from projector.storage import checkpoints, locks, migrate, statements
from projector.storage.columns import FACET_COLUMNS
from projector.storage.connection import connect, disconnect
from projector.storage.failures import translated
from projector.storage.loading import load_over
from projector.storage.store import WRITER_SETTINGS, now_ms, open_reader
from projector.storage.tables import endpoint_state
from projector.storage.unit_of_work import UnitOfWork, transaction
from projector.storage.wire import REGISTER_DECODERS, decode_json, set_codecs

_TABLE = "endpoint_state_rebuild"
_DEAD_LETTER_TABLE = "dead_letter_rebuild"
_COLUMNS = tuple(column.name for column in endpoint_state.columns)
_OTHERS = _COLUMNS[1:]
_REGISTERS = tuple(facet.registers.name for facet in FACET_COLUMNS)
_SEEDED_AT_ONCE = 5000
_COMMAND_TIMEOUT_S = 3600.0  # longer than comparing any table takes: it is for a server that has vanished
_SHOW_EVERY_S = 1.0

_PREPARE = f"""
DROP TABLE IF EXISTS {_TABLE}, {_DEAD_LETTER_TABLE};
CREATE UNLOGGED TABLE {_TABLE} (LIKE endpoint_state INCLUDING ALL EXCLUDING COMMENTS) WITH (fillfactor = 80);
CREATE UNLOGGED TABLE {_DEAD_LETTER_TABLE} (LIKE dead_letter INCLUDING DEFAULTS INCLUDING INDEXES);
CREATE TEMPORARY TABLE endpoint_candidate (endpoint_id text PRIMARY KEY);
"""
_DROP = f"DROP TABLE IF EXISTS {_TABLE}, {_DEAD_LETTER_TABLE}"


def _row(alias: str) -> str:
    return f"ROW({', '.join(f'{alias}.{name}' for name in _COLUMNS)})"


# A comparison of everything needs plans that read everything.
_ANY_PLAN = "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_seqscan = on"

_COMPARE = f"""
INSERT INTO endpoint_candidate
SELECT endpoint_id
FROM endpoint_state AS found FULL JOIN {_TABLE} AS implied USING (endpoint_id)
WHERE {_row("found")} IS DISTINCT FROM {_row("implied")}
"""  # noqa: S608 - names of ours

_ADD_CANDIDATES = "INSERT INTO endpoint_candidate SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"

_FIND_DIFFERENCES = f"""
CREATE TEMPORARY TABLE endpoint_difference ON COMMIT DROP AS
SELECT candidate.endpoint_id,
       CASE WHEN found.endpoint_id IS NULL THEN 'missing'
            WHEN implied.endpoint_id IS NULL THEN 'extra'
            ELSE 'different' END AS kind,
       array_remove(ARRAY[{
    ", ".join(f"CASE WHEN found.{name} IS DISTINCT FROM implied.{name} THEN '{name}' END" for name in _OTHERS)
}], NULL) AS columns
FROM endpoint_candidate AS candidate
LEFT JOIN endpoint_state AS found USING (endpoint_id)
LEFT JOIN {_TABLE} AS implied USING (endpoint_id)
WHERE {_row("found")} IS DISTINCT FROM {_row("implied")}
"""  # noqa: S608 - names of ours

_COUNT_KINDS = "SELECT kind, count(*) FROM endpoint_difference GROUP BY kind"
_COUNT_COLUMNS = """
SELECT name, count(*) FROM endpoint_difference, unnest(columns) AS name
WHERE kind = 'different' GROUP BY name ORDER BY count(*) DESC, name
"""
_COUNT_ROWS = f"SELECT count(*) FROM {_TABLE}"  # noqa: S608 - a name of ours
_SHOW = f"""
SELECT difference.endpoint_id, difference.kind, difference.columns, to_jsonb(found), to_jsonb(implied)
FROM endpoint_difference AS difference
LEFT JOIN endpoint_state AS found USING (endpoint_id)
LEFT JOIN {_TABLE} AS implied USING (endpoint_id)
WHERE $1::text IS NULL OR endpoint_id = $1
ORDER BY endpoint_id LIMIT $2
"""  # noqa: S608 - names of ours

_APPLY = (
    """
    DELETE FROM endpoint_state USING endpoint_difference AS difference
    WHERE difference.kind = 'extra' AND endpoint_state.endpoint_id = difference.endpoint_id
    """,
    f"""
    UPDATE endpoint_state AS found SET {", ".join(f"{name} = implied.{name}" for name in _OTHERS)}
    FROM endpoint_difference AS difference JOIN {_TABLE} AS implied USING (endpoint_id)
    WHERE difference.kind = 'different' AND found.endpoint_id = difference.endpoint_id
    """,  # noqa: S608 - names of ours
    f"""
    INSERT INTO endpoint_state ({", ".join(_COLUMNS)})
    SELECT {", ".join(f"implied.{name}" for name in _COLUMNS)}
    FROM endpoint_difference AS difference JOIN {_TABLE} AS implied USING (endpoint_id)
    WHERE difference.kind = 'missing'
    """,  # noqa: S608 - names of ours
)

_PARKED = "SELECT position, stored_at FROM dead_letter WHERE state = 'parked' AND stream = $1"
_RESOLVE_DEAD_LETTERS = f"""
UPDATE dead_letter SET state = 'resolved', closed_at = now()
WHERE state = 'parked' AND stream = $1 AND position = ANY($2::bigint[])
  AND NOT EXISTS (
      SELECT FROM {_DEAD_LETTER_TABLE} AS again
      WHERE again.stream = dead_letter.stream AND again.position = dead_letter.position
  )
"""  # noqa: S608 - names of ours
_PARK_DEAD_LETTERS = f"""
INSERT INTO dead_letter AS known SELECT * FROM {_DEAD_LETTER_TABLE}
ON CONFLICT (stream, position) DO UPDATE
SET state = 'parked', closed_at = NULL, reason = excluded.reason, detail = excluded.detail,
    subject = excluded.subject, headers = excluded.headers, payload = excluded.payload, stored_at = excluded.stored_at
WHERE known.state <> 'discarded' OR known.stored_at <> excluded.stored_at
"""  # noqa: S608 - names of ours


class _StagingUnitOfWork(UnitOfWork):
    """The same verbs on the staging tables; their checkpoint is nobody else's, so there is none to hold or move."""

    _table = _TABLE
    _dead_letter_table = _DEAD_LETTER_TABLE

    def __init__(self, connection: Any, touched: set[str]) -> None:
        super().__init__(connection)
        self._touched = touched

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Write what changed, and remember whose rows these are."""
        await super().save(endpoints)
        self._touched.update(endpoints)

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Do nothing."""


class Staging:
    """The staging tables, for one rebuild at a time."""

    def __init__(self, url: str, purpose: str) -> None:
        """Remember where the database is, and what to be called there: nothing is opened yet."""
        self._url = url
        self._purpose = purpose
        self._shown_at = 0.0
        self._connection: Any = None
        self._reader: Any = None
        self._alone = False
        self._touched: set[str] = set()
        self._compared = False

    async def open(self) -> None:
        """Connect, keep every other rebuild out, and make empty tables.

        Raises:
            RebuildRunningError: another one is under way.
            NotMigratedError, DatabaseUnavailableError, DatabaseRefusedError: as their names say.
        """
        self._connection = connection = await connect(
            self._url,
            purpose=self._purpose,
            settings={**WRITER_SETTINGS, "synchronous_commit": "off"},
            command_timeout_s=_COMMAND_TIMEOUT_S,
        )
        with translated():
            await migrate.check(connection)
            await locks.keep_rebuilds_out(connection)
            self._alone = True
            await set_codecs(connection)
            await connection.execute(_PREPARE)
            await connection.execute(statements.CREATE_CHANGES)
        self._reader = await open_reader(self._url)

    async def close(self) -> None:
        """Drop the tables and disconnect."""
        connection, self._connection = self._connection, None
        if self._reader is not None:
            self._reader.terminate()
            self._reader = None
        if connection is None:
            return
        try:
            if self._alone:  # else the tables are those of the rebuild that is under way
                with translated():
                    await connection.execute(_DROP)
        finally:
            await disconnect(connection)

    async def lead(self) -> bool:
        """Become the one projector that works unless a daemon is; return whether it did."""
        with translated():
            leads = await locks.lead(self._connection)
            if leads:
                await checkpoints.write_activity(self._connection, active_since=now_ms())
        return leads

    async def show(self, position: int, target: int) -> None:
        """Let others see how far it is, in the name of the connection; at most once a second."""
        if time.monotonic() - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = time.monotonic()
            with translated():
                name = f"projector {self._purpose} {position}/{target}"
                await self._connection.execute("SELECT set_config('application_name', $1, false)", name)

    async def checkpoint(self) -> Checkpoint | None:
        """Return the live checkpoint."""
        with translated():
            return await checkpoints.read(self._connection)

    async def parked(self, stream: str) -> set[tuple[int, int]]:
        """Return position and stored time of the dead letters that wait for somebody."""
        with translated():
            return {tuple(row) for row in await self._connection.fetch(_PARKED, stream)}

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a transaction on the staging tables."""
        touched = self._touched if self._compared else set[str]()
        return transaction(self._connection, lambda connection: _StagingUnitOfWork(connection, touched))

    async def load(self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """Return working copies of endpoints as they are once what is uncommitted is saved."""
        with translated():
            return await load_over(self._reader, _TABLE, needed, uncommitted)

    async def seed(self, first: int) -> None:
        """Begin with what the live table knows from before a position.

        The stream implies the rest; a position of a register that was overwritten since is not known any more,
        and what overwrote it is in the stream.
        """
        registers = ", ".join(_REGISTERS)
        async with transaction(self._connection, lambda connection: _StagingUnitOfWork(connection, set())) as work:
            cursor = self._connection.cursor(
                f"SELECT endpoint_id, last_event_seq, last_event_at, {registers} FROM endpoint_state",  # noqa: S608 - names of ours
                prefetch=_SEEDED_AT_ONCE,
            )
            seeds: dict[str, Endpoint] = {}
            async for endpoint_id, last_event_seq, last_event_at, *values in cursor:
                # The replay comes to a latest event in the stream and says so again,
                # unless that was deleted or its originator is not folded any more.
                seed = _read_back(endpoint_id, values, last_event_seq, last_event_at).before(first)
                if seed is not None:
                    seeds[endpoint_id] = seed
                if len(seeds) >= _SEEDED_AT_ONCE:
                    await work.save(seeds)
                    seeds.clear()
                    # Else each part is found by a scan of all before it.
                    await self._connection.execute("TRUNCATE endpoint_change")
            await work.save(seeds)

    async def clear(self) -> None:
        """Empty the tables."""
        with translated():
            await self._connection.execute(f"TRUNCATE {_TABLE}, {_DEAD_LETTER_TABLE}")

    async def compare(self) -> None:
        """Find the rows that may differ, while everybody goes on; from now on what is folded may differ too."""
        self._touched.clear()
        self._compared = True
        async with transaction(self._connection, UnitOfWork):
            await self._connection.execute(_ANY_PLAN)
            await self._connection.execute("DELETE FROM endpoint_candidate")
            await self._connection.execute(_COMPARE)

    @asynccontextmanager
    async def finish(self) -> AsyncIterator["FinalTransaction"]:
        """Begin the transaction in which the live table is locked, compared and changed."""
        async with transaction(
            self._connection, lambda connection: FinalTransaction(connection, self, self._touched)
        ) as final:
            yield final


class FinalTransaction:
    """The verbs of the last transaction of a rebuild."""

    def __init__(self, connection: Any, staging: Staging, touched: Iterable[str]) -> None:
        """Work on the connection of `staging`; `touched` are the endpoints folded since `Staging.compare`."""
        self._connection = connection
        self._touched = touched
        self.savepoints = staging
        """Transactions on the staging tables: on this connection they are savepoints of the final one."""

    async def hold(self) -> Checkpoint | None:
        """Lock the live checkpoint, so that no daemon folds until the transaction ends, and return it."""
        return await checkpoints.read(self._connection, hold=True)

    async def differences(self, *, show: int, endpoint_id: str | None) -> Differences:
        """Return how the live table is not what the stream implies, with so many rows or that endpoint's shown."""
        connection = self._connection
        await connection.execute(_ADD_CANDIDATES, list(self._touched))
        await connection.execute(_FIND_DIFFERENCES)
        kinds = dict(await connection.fetch(_COUNT_KINDS))
        shown = await connection.fetch(_SHOW, endpoint_id, 1 if endpoint_id is not None else show)
        return Differences(
            compared=await connection.fetchval(_COUNT_ROWS) + kinds.get("extra", 0),
            missing=kinds.get("missing", 0),
            extra=kinds.get("extra", 0),
            different=kinds.get("different", 0),
            by_column=dict(await connection.fetch(_COUNT_COLUMNS)),
            shown=[_row_difference(*row) for row in shown],
        )

    async def apply(self, checkpoint: Checkpoint, retried: Collection[int]) -> None:
        """Change the rows that differ and no others, settle the dead letters, and move the checkpoint.

        `retried` are the positions of dead letters that the replay came to.
        """
        for statement in _APPLY:
            await self._connection.execute(statement)
        await self._connection.execute(_RESOLVE_DEAD_LETTERS, checkpoint.stream, retried)
        await self._connection.execute(_PARK_DEAD_LETTERS)
        await checkpoints.replace(self._connection, checkpoint)


def _read_back(endpoint_id: str, values: Sequence[str | None], last_event_seq: int, last_event_at: int) -> Endpoint:
    """Return an endpoint as the live table knows it."""
    states: list[Any] = []
    for facet, decoder, value in zip(FACETS, REGISTER_DECODERS, values, strict=True):
        try:
            states.append(facet.initial if value is None else decoder.decode(value))
        except DecodeError as error:
            evidence = f"{error}; the stream no longer says what they were: first restore them, or set them to null"
            raise DamagedRowError(endpoint_id, facet.name, evidence) from error
    return Endpoint(states, last_event_seq, last_event_at)


def _row_difference(
    endpoint_id: str, kind: DifferenceKind, columns: Sequence[str], found: bytes | None, implied: bytes | None
) -> RowDifference:
    before = decode_json(found) if found is not None else {}
    after = decode_json(implied) if implied is not None else {}
    return RowDifference(endpoint_id, kind, {name: (before.get(name), after.get(name)) for name in columns})
