"""Questions about the tables, which must not change anything."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projector.domain.summary import Census, Summary
from projector.errors import QueryRefusedError, one_line
from projector.storage import migrate
from projector.storage.connection import connect, engine_connection
from projector.storage.failures import translated
from projector.storage.summary import read as read_summary
from projector.storage.tables import endpoint_state
from projector.storage.times import set_time_codecs

READ_ONLY = {"default_transaction_read_only": "on"}
_TIMEOUT_S = 300.0
_STATEMENT_CLASSES = {"0A", "22", "23", "25", "42", "54"}


class Answer(NamedTuple):
    """What a query returned."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


async def query(url: str, sql: str) -> Answer:
    """Run one statement of a person's in a read-only transaction.

    Raises:
        QueryRefusedError: Postgres objects to the statement.
        DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    connection = await connect(url, purpose="sql", settings=READ_ONLY)
    try:
        with translated(), _refused():
            await set_time_codecs(connection)
            async with connection.transaction(readonly=True):
                statement = await connection.prepare(sql, timeout=_TIMEOUT_S)
                columns = tuple(attribute.name for attribute in statement.get_attributes())
                if not columns:
                    # A read-only transaction does not keep a superuser from COPY … TO PROGRAM.
                    raise QueryRefusedError("only statements that return rows can be asked")
                return Answer(columns, await _fetch(statement))
    finally:
        connection.terminate()


async def summary(url: str, stream: str) -> Summary:
    """Return the state of the projection, with the endpoints counted, which reads the whole table.

    Raises:
        NotMigratedError, DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    connection = await connect(url, purpose="report", settings=READ_ONLY)
    try:
        with translated():
            await migrate.check(connection)
            found = await read_summary(connection, stream)
            return found._replace(endpoints=await connection.fetchval("SELECT count(*) FROM endpoint_state"))
    finally:
        connection.terminate()


async def census(url: str) -> Census:
    """Count the endpoints by status and by version, the most frequent first; this reads the whole table.

    Raises:
        NotMigratedError, DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """

    async def count_by(connection: AsyncConnection, column: ColumnElement[str]) -> dict[str, int]:
        count = func.count()
        rows = await connection.execute(select(column, count).group_by(column).order_by(count.desc(), column))
        return {row[0]: row[1] for row in rows}

    async with reading(url) as connection:
        return Census(
            by_status=await count_by(connection, endpoint_state.c.connectivity_status),
            by_version=await count_by(connection, func.coalesce(endpoint_state.c.app_version, "(unknown)")),
        )


async def _fetch(statement: Any) -> Sequence[Sequence[Any]]:
    try:
        rows: Sequence[Sequence[Any]] = await statement.fetch(timeout=_TIMEOUT_S)
    except (OverflowError, ValueError) as error:
        raise QueryRefusedError(f"a value cannot be read: {one_line(error)}; cast it to text") from error
    return rows


@contextmanager
def _refused() -> Iterator[None]:
    """Tell what is wrong with a statement from what is wrong with the database."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] in _STATEMENT_CLASSES:
            raise QueryRefusedError(str(error)) from error
        raise


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[AsyncConnection]:
    """Open a connection that can only read, to a database that has the tables of this version.

    Raises:
        NotMigratedError, DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    async with engine_connection(url, purpose="report", settings=READ_ONLY) as connection:
        await migrate.check((await connection.get_raw_connection()).driver_connection)
        yield connection
