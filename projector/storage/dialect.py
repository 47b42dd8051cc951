"""What differs between tables of one Postgres and tables that Citus distributes over workers.

It is chosen for each connection, by whether `endpoint_state` is distributed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from projector.domain.endpoint import FacetSet
from projector.errors import DatabaseUnavailableError
from projector.storage.connection import Connection
from projector.storage.distributed import Distributed
from projector.storage.local import Local

_HAS_CITUS = "SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
_IS_DISTRIBUTED = """
SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('endpoint_state') AND partmethod = 'h')
"""


class Dialect(Protocol):
    """The settings and the statements that depend on where the rows are."""

    async def configure(self, connection: Connection) -> None:
        """Set what the statements need, besides the settings that the connection was opened with."""
        ...

    def check_commit(self) -> None:
        """Raise DatabaseUnavailableError if a commit is not complete: rows that are loaded next may be old."""
        ...

    async def settle(self, connection: Connection) -> None:
        """Wait until what another connection has committed can be read; raises DatabaseUnavailableError."""
        ...

    async def prepare_saving(self, connection: Connection) -> None:
        """Create the table into which the connection copies rows, if it needs one of its own."""
        ...

    async def queries(
        self, connection: Connection, table: str, needed: Mapping[str, FacetSet]
    ) -> Collection[Sequence[Any]]:
        """Return queries, each with its arguments, that together read endpoints.

        Their columns are endpoint_id, last_event_seq, last_event_at and the registers of each facet;
        those that are not needed may be null.
        """
        ...

    def next_part(self) -> int:
        """Return a number for the rows of one save."""
        ...

    async def save(self, connection: Connection, table: str, part: int, rows: Collection[Sequence[Any]]) -> None:
        """Merge rows of `statements.SAVED_COLUMNS` into a table; a facet without registers did not change."""
        ...

    async def forget_saved(self, connection: Connection) -> None:
        """Drop what a long transaction has saved from the table into which rows are copied."""
        ...

    working_tables: Collection[str]
    """The tables of a rebuild, besides the staging tables, that do not end with its connection."""

    def create_staging(self, table: str) -> str:
        """Return statements that create a staging table, and those in which differences are collected."""
        ...

    begin_comparison: str
    """Statements that begin a transaction which reads whole tables."""

    async def collect_differences(self, connection: Connection, query: str) -> None:
        """Write the result of a query into `endpoint_difference`, within a transaction."""
        ...

    async def write_json(self, connection: Connection) -> None:
        """Let JSON that Postgres writes in the present transaction have times in UTC, and intervals as ISO 8601 says.

        This is for workers: the connection itself is opened with these settings.
        """
        ...

    state_at: str
    """The rows as they were at the moment $2, at least that of the endpoint $1."""

    pages: str
    """The query that returns how many pages the table has; in the largest partition or shard, if it has several."""


async def choose(connection: Connection) -> Dialect:
    """Return the dialect of a database, and configure the connection for it."""
    dialect: Dialect = Distributed() if await is_distributed(connection) else Local()
    await dialect.configure(connection)
    return dialect


async def check(connection: Connection, dialect: Dialect) -> None:
    """Check that a dialect chosen earlier is still the one of the database.

    Raises:
        DatabaseUnavailableError: the table was distributed meanwhile, or no longer is; a new connection is needed.
    """
    if await is_distributed(connection) != isinstance(dialect, Distributed):
        raise DatabaseUnavailableError("endpoint_state was distributed, or undistributed, since this connection began")


async def is_distributed(connection: Connection) -> bool:
    """Return whether Citus distributes `endpoint_state`."""
    return bool(await connection.fetchval(_HAS_CITUS) and await connection.fetchval(_IS_DISTRIBUTED))
