"""The dialect for tables that Citus distributes over workers by `endpoint_id`.

A statement goes to the one shard that has its endpoints, or to every shard with a part of the work for each:
rows never pass through the coordinator to be joined.
"""

import asyncio
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any

from asyncpg.exceptions import PostgresLogMessage

from projector.domain.endpoint import FacetSet
from projector.errors import DatabaseUnavailableError
from projector.storage import statements
from projector.storage.connection import Connection

BATCH_TABLE = "endpoint_state_batch"
"""Rows are copied into this table, whose shards are where those of `endpoint_state` are, and merged from there.

It is unlogged, and empty between transactions.
"""

SETTINGS: Mapping[str, str] = {
    # Citus chooses shards by the values of the arguments.
    "plan_cache_mode": "force_custom_plan",
    # One connection to each worker does everything in a transaction, and so prepares and commits once.
    "citus.multi_shard_modify_mode": "sequential",
    "citus.max_adaptive_executor_pool_size": "1",
    # `check_commit` relies on the warnings.
    "client_min_messages": "warning",
}
_CONFIGURE = "; ".join(f"SET {name} = '{value}'" for name, value in SETTINGS.items())

_GROUP_BY_SHARD = """
SELECT array_agg(endpoint_id), bit_or(facets)
FROM unnest($1::text[], $2::integer[]) AS needed (endpoint_id, facets)
GROUP BY get_shard_id_for_distribution_column('endpoint_state', endpoint_id)
"""
_WRITE_JSON = (
    "SET LOCAL citus.propagate_set_commands = 'local'",
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL intervalstyle = 'iso_8601'",
)
"""Workers have settings of their own. Citus passes on the whole text with such a setting, so each is executed alone."""
_GROUPED_AT_ONCE = 10_000  # endpoints

_UNFINISHED = r"""
SELECT nodename || ':' || nodeport, success, result
FROM run_command_on_workers($$
    SELECT coalesce(string_agg(gid, ' '), '') FROM pg_prepared_xacts
    WHERE database = current_database() AND gid LIKE 'citus\_%'
$$)
"""
_SETTLED_WITHIN_S = 5.0
_POLL_S = 0.05
_LEFT_OPEN = "a worker of Citus has not committed yet what is committed on the others: Citus does that within a minute"

_DISTRIBUTE = "SELECT create_distributed_table('{table}', 'endpoint_id', colocate_with => 'endpoint_state')"


def distribute(table: str) -> str:
    """Return the statement that distributes a table as `endpoint_state` is."""
    return _DISTRIBUTE.format(table=table)


class Distributed:
    """Rows are read and written by the workers that have them; see `dialect.Dialect`."""

    working_tables: Collection[str] = ("endpoint_candidate", "endpoint_difference")
    # Nothing has been changed yet, so every shard may have a connection of its own.
    begin_comparison = """
SET LOCAL citus.multi_shard_modify_mode = 'parallel';
SET LOCAL citus.max_adaptive_executor_pool_size TO DEFAULT;
"""
    # A function that reads distributed tables is not inlined, so it has to know the endpoint.
    state_at = "endpoint_state_at($2, $1)"
    pages = """
SELECT coalesce(max(shard_size), 0) / current_setting('block_size')::bigint
FROM citus_shards WHERE table_name = 'endpoint_state'::regclass
"""

    def __init__(self) -> None:
        # Deleted rows stay in the index until a vacuum, so the parts of all connections differ.
        self._parts = count(secrets.randbelow(1 << 62))
        self._was_left_open = False

    async def configure(self, connection: Connection) -> None:
        """Let Citus plan with values, and use one connection to each worker; listen to its warnings."""
        connection.add_log_listener(self._hear)
        await connection.execute(_CONFIGURE)

    def check_commit(self) -> None:
        """Raise DatabaseUnavailableError if Citus has warned that a worker still has to commit."""
        if self._was_left_open:
            raise DatabaseUnavailableError(_LEFT_OPEN)

    async def settle(self, connection: Connection) -> None:
        """Wait until every worker has committed what the coordinator has, or raise DatabaseUnavailableError.

        The coordinator commits first, and then tells the workers: until then their rows are old.
        """
        waited_for = await self._unfinished(connection)
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while waited_for:
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(_LEFT_OPEN)
            await asyncio.sleep(_POLL_S)
            waited_for &= await self._unfinished(connection)

    async def _unfinished(self, connection: Connection) -> set[str]:
        """Return the names of the transactions that are prepared on any worker."""
        names: set[str] = set()
        for worker, answers, result in await connection.fetch(_UNFINISHED):
            if not answers:
                raise DatabaseUnavailableError(f"worker {worker} of Citus does not answer: {' '.join(result.split())}")
            names.update(result.split())
        return names

    def _hear(self, _: object, message: PostgresLogMessage) -> None:
        self._was_left_open |= "failed to commit transaction" in str(message.message)

    async def prepare_saving(self, connection: Connection) -> None:
        """Do nothing: all connections share one table."""

    async def queries(
        self, connection: Connection, table: str, needed: Mapping[str, FacetSet]
    ) -> Collection[Sequence[Any]]:
        """Return a query for every few endpoints of a shard."""
        query, endpoint_ids, facet_sets = statements.load_shard(table), list(needed), list(needed.values())
        queries: list[Sequence[Any]] = []
        for start in range(0, len(endpoint_ids), _GROUPED_AT_ONCE):
            some = slice(start, start + _GROUPED_AT_ONCE)
            for of_shard, facets in await connection.fetch(_GROUP_BY_SHARD, endpoint_ids[some], facet_sets[some]):
                queries += [
                    (query, of_shard[first : first + statements.LOADED_AT_ONCE], facets)
                    for first in range(0, len(of_shard), statements.LOADED_AT_ONCE)
                ]
        return queries

    def next_part(self) -> int:
        """Return a number that no other connection uses."""
        return next(self._parts)

    async def save(self, connection: Connection, table: str, part: int, rows: Collection[Sequence[Any]]) -> None:
        """Copy rows to the workers, and let each worker merge its own."""
        await connection.copy_records_to_table(BATCH_TABLE, records=rows, columns=statements.SAVED_COLUMNS)
        await connection.execute(statements.merge(table, BATCH_TABLE), part)
        await connection.execute(f"DELETE FROM {BATCH_TABLE} WHERE part = $1", part)

    async def forget_saved(self, connection: Connection) -> None:
        """Do nothing: parts are found by an index."""

    def create_staging(self, table: str) -> str:
        """Return statements; all tables have their shards where those of `endpoint_state` are."""
        return f"""
{statements.create_like_live(table)};
CREATE UNLOGGED TABLE endpoint_candidate (endpoint_id text PRIMARY KEY);
CREATE UNLOGGED TABLE endpoint_difference (endpoint_id text PRIMARY KEY, shard integer, kind text, columns text[]);
{"; ".join(map(distribute, (table, *self.working_tables)))};
"""

    async def collect_differences(self, connection: Connection, query: str) -> None:
        """Fill the table, which ends with the rebuild."""
        await self.write_json(connection)
        await connection.execute(f"INSERT INTO endpoint_difference {query}")

    async def write_json(self, connection: Connection) -> None:
        """Change the settings of the workers, too."""
        for setting in _WRITE_JSON:
            await connection.execute(setting)
