"""Questions about the tables, which must not change anything."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from projector.errors import QueryRefusedError
from projector.storage import migrate
from projector.storage.checkpoints import PROJECTION, SHARD
from projector.storage.connection import connect, engine_connection
from projector.storage.failures import translated
from projector.storage.locks import LEADER, LEADER_LOCK
from projector.storage.tables import dead_letter, endpoint_state, projector_checkpoint

_READ_ONLY = {"default_transaction_read_only": "on"}
_TIMEOUT_S = 300.0
_STATEMENT_CLASSES = {"0A", "22", "23", "25", "42", "54"}


class Answer(NamedTuple):
    """What a query returned."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


class Summary(NamedTuple):
    """How far the projection is, and what it has."""

    position: int
    rules_version: str | None
    """None as long as nothing was ever folded."""
    skipped: dict[str, int]
    endpoints: int
    dead_letters: dict[str, int]
    """Those that are neither resolved nor discarded, by reason."""
    active: dict[str, Any] | None
    """The process that works, as Postgres sees it: application, process id, address and since when."""


async def query(url: str, sql: str) -> Answer:
    """Run one statement of a person's in a read-only transaction.

    Raises:
        QueryRefusedError: Postgres objects to the statement.
        DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    connection = await connect(url, purpose="sql", settings=_READ_ONLY)
    try:
        with translated(), _refused():
            async with connection.transaction(readonly=True):
                statement = await connection.prepare(sql, timeout=_TIMEOUT_S)
                columns = tuple(attribute.name for attribute in statement.get_attributes())
                if not columns:
                    # A read-only transaction does not keep a superuser from COPY … TO PROGRAM.
                    raise QueryRefusedError("only statements that return rows can be asked")
                return Answer(columns, await statement.fetch(timeout=_TIMEOUT_S))
    finally:
        connection.terminate()


async def summary(url: str, stream: str) -> Summary:
    """Return the state of the projection.

    Raises:
        NotMigratedError, DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    async with reading(url) as connection:
        checkpoint = (
            await connection.execute(
                select(projector_checkpoint).where(
                    projector_checkpoint.c.projection == PROJECTION, projector_checkpoint.c.shard == SHARD
                )
            )
        ).one_or_none()
        endpoints = await connection.scalar(select(func.count()).select_from(endpoint_state))
        parked = await connection.execute(
            select(dead_letter.c.reason, func.count())
            .where(dead_letter.c.stream == stream, dead_letter.c.state == "parked")
            .group_by(dead_letter.c.reason)
            .order_by(dead_letter.c.reason)
        )
        by_reason = {row[0]: row[1] for row in parked}
        leader = await connection.execute(text(LEADER), {"name": LEADER_LOCK, "shard": SHARD})
        active = leader.mappings().one_or_none()
    return Summary(
        position=checkpoint.position if checkpoint else 0,
        rules_version=checkpoint.rules_version if checkpoint else None,
        skipped=checkpoint.skipped if checkpoint else {},
        endpoints=endpoints or 0,
        dead_letters=by_reason,
        active=None if active is None else dict(active),
    )


async def census(url: str) -> tuple[dict[str, int], dict[str, int]]:
    """Count the endpoints by status and by version, the most frequent first; this reads the whole table.

    Raises:
        NotMigratedError, DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """

    async def count_by(connection: AsyncConnection, column: ColumnElement[str]) -> dict[str, int]:
        count = func.count()
        rows = await connection.execute(select(column, count).group_by(column).order_by(count.desc(), column))
        return {row[0]: row[1] for row in rows}

    async with reading(url) as connection:
        return (
            await count_by(connection, endpoint_state.c.connectivity_status),
            await count_by(connection, func.coalesce(endpoint_state.c.app_version, "(unknown)")),
        )


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
    async with engine_connection(url, purpose="report", settings=_READ_ONLY) as connection:
        await migrate.check((await connection.get_raw_connection()).driver_connection)
        yield connection
