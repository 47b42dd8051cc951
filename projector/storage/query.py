"""Read-only connections, and the statement that a person asks."""

from collections import UserString
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from projector.errors import QueryRefusedError, one_line
from projector.storage.connection import Connection, connect
from projector.storage.failures import translated
from projector.storage.version import opened

READ_ONLY = {"default_transaction_read_only": "on"}
_TIMEOUT_S = 300.0
_STATEMENT_CLASSES = {"0A", "22", "23", "25", "42", "54"}
"""SQLSTATE classes of errors that the statement causes, not the database."""


class Answer(NamedTuple):
    """What a query returned."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


def reading(url: str) -> AbstractAsyncContextManager[Connection]:
    """Open a read-only connection for the length of a block."""
    return opened(url, purpose="report", settings=READ_ONLY)


async def query(url: str, sql: str) -> Answer:
    """Run one statement in a read-only transaction; raises QueryRefusedError if the statement is at fault."""
    connection = await connect(url, purpose="sql", settings=READ_ONLY)
    try:
        with translated(), _refused():
            async with connection.transaction(readonly=True):
                beyond = await _read_times(connection)
                statement = await connection.prepare(sql, timeout=_TIMEOUT_S)
                columns = tuple(attribute.name for attribute in statement.get_attributes())
                if not columns:
                    # A read-only transaction does not keep a superuser from COPY … TO PROGRAM.
                    raise QueryRefusedError("only statements that return rows can be asked")
                try:
                    rows = await statement.fetch(timeout=_TIMEOUT_S)
                except (OverflowError, ValueError) as error:
                    raise QueryRefusedError(f"a value cannot be read: {one_line(error)}; cast it to text") from error
                await _write_times(connection, beyond)
                return Answer(columns, [tuple(row) for row in rows])
    finally:
        connection.terminate()


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_TIMES: Mapping[str, tuple[date, timedelta]] = {
    "date": (_EPOCH.date(), timedelta(days=1)),
    "timestamp": (_EPOCH.replace(tzinfo=None), timedelta(microseconds=1)),
    "timestamptz": (_EPOCH, timedelta(microseconds=1)),
}
"""How Postgres counts: from when, and in which unit."""

_BeyondPython: TypeAlias = dict[tuple[str, tuple[int]], UserString]
"""Texts of dates and times that only Postgres can hold, such as infinity, by type and value."""


async def _read_times(connection: Connection) -> _BeyondPython:
    """Let a connection read any date and time; return the texts that `_write_times` has to fill in."""
    beyond: _BeyondPython = {}

    def decode(name: str, value: tuple[int]) -> date | UserString:
        epoch, unit = _TIMES[name]
        try:
            return epoch + value[0] * unit
        except OverflowError:
            return beyond.setdefault((name, value), UserString(""))

    for name in _TIMES:
        decoder = partial(decode, name)
        await connection.set_type_codec(name, schema="pg_catalog", encoder=tuple, decoder=decoder, format="tuple")
    return beyond


async def _write_times(connection: Connection, beyond: _BeyondPython) -> None:
    """Have Postgres write them."""
    for (name, value), text in beyond.items():
        text.data = await connection.fetchval(f"SELECT $1::{name}::text", value)


@contextmanager
def _refused() -> Iterator[None]:
    """Tell errors of the statement from errors of the database."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] in _STATEMENT_CLASSES:
            raise QueryRefusedError(str(error)) from error
        raise
