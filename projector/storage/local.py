"""The dialect for tables of one Postgres."""

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from typing import Any

from projector.domain.endpoint import FacetSet
from projector.storage import statements
from projector.storage.connection import Connection

_SAVED = "saved_endpoint"
_CREATE_SAVED = f"""
CREATE TEMPORARY TABLE {_SAVED} ON COMMIT DELETE ROWS AS
SELECT 0 AS part, * FROM endpoint_state WITH NO DATA
"""
"""Each connection copies rows into this table and merges them from there, one part for each save."""

_PARTS = cycle(range(1_000_000))  # more than any transaction has


class Local:
    """Rows are read and written where they are; see `dialect.Dialect`."""

    working_tables: Collection[str] = ()
    # Comparing everything needs plans that read everything.
    begin_comparison = "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_seqscan = on;"
    state_at = "endpoint_state_at($2)"
    # A range of pages is read in each partition, if the owner of the table has partitioned it.
    pages = """
SELECT greatest(pg_relation_size('endpoint_state'), max(pg_relation_size(relid)))
       / current_setting('block_size')::bigint
FROM pg_partition_tree('endpoint_state')
"""

    async def configure(self, connection: Connection) -> None:
        """Do nothing: connections are opened with the settings that this dialect needs."""

    def check_commit(self) -> None:
        """Do nothing: a commit is complete at once."""

    async def settle(self, connection: Connection) -> None:
        """Do nothing: what is committed can be read."""

    async def prepare_saving(self, connection: Connection) -> None:
        """Create the temporary table."""
        await connection.execute(_CREATE_SAVED)

    async def queries(
        self, connection: Connection, table: str, needed: Mapping[str, FacetSet]
    ) -> Collection[Sequence[Any]]:
        """Return a query for every few endpoints."""
        del connection
        query, endpoint_ids, facet_sets = statements.load(table), list(needed), list(needed.values())
        starts = range(0, len(endpoint_ids), statements.LOADED_AT_ONCE)
        slices = [slice(start, start + statements.LOADED_AT_ONCE) for start in starts]
        return [(query, endpoint_ids[some], facet_sets[some]) for some in slices]

    def next_part(self) -> int:
        """Return a number that differs from the last ones."""
        return next(_PARTS)

    async def save(self, connection: Connection, table: str, part: int, rows: Collection[Sequence[Any]]) -> None:
        """Copy rows into the temporary table, and merge them from there."""
        await connection.copy_records_to_table(_SAVED, records=rows, columns=statements.SAVED_COLUMNS)
        await connection.execute(statements.merge(table, _SAVED), part)

    async def forget_saved(self, connection: Connection) -> None:
        """Empty the temporary table: otherwise each part would scan all parts before it."""
        await connection.execute(f"TRUNCATE {_SAVED}")

    def create_staging(self, table: str) -> str:
        """Return statements; the candidates are temporary."""
        return f"""
{statements.create_like_live(table)};
CREATE TEMPORARY TABLE endpoint_candidate (endpoint_id text PRIMARY KEY);
"""

    async def collect_differences(self, connection: Connection, query: str) -> None:
        """Create the table, which ends with the transaction."""
        await connection.execute(f"CREATE TEMPORARY TABLE endpoint_difference ON COMMIT DROP AS {query}")

    async def write_json(self, connection: Connection) -> None:
        """Do nothing: the settings of the connection hold for everything that it reads."""
