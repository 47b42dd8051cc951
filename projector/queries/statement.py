"""Runs the statement of `projector sql`."""

from collections import UserString
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from projector.errors import QueryRefusedError, one_line
from projector.storage.connection import Connection, connect
from projector.storage.failures import translated

_TIMEOUT_S = 300.0
_READ_ONLY = {"default_transaction_read_only": "on"}
_STATEMENT_CLASSES = {"0A", "22", "23", "25", "42", "54"}
"""SQLSTATE classes of errors that the statement causes, not the database."""


class Answer(NamedTuple):
    """What a query returned."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


async def query(url: str, sql: str) -> Answer:
    """Run one statement in a read-only transaction; raises QueryRefusedError if the statement is at fault."""
    connection = await connect(url, purpose="sql", settings=_READ_ONLY)
    try:
        with translated():
            try:
                async with connection.transaction(readonly=True):
                    return await _answer(connection, sql)
            except asyncpg.PostgresError as error:
                if (error.sqlstate or "")[:2] not in _STATEMENT_CLASSES:
                    raise
                raise QueryRefusedError(str(error)) from error
    finally:
        connection.terminate()


async def _answer(connection: Connection, sql: str) -> Answer:
    beyond = await _read_times(connection)
    statement = await connection.prepare(sql, timeout=_TIMEOUT_S)
    columns = tuple(attribute.name for attribute in statement.get_attributes())
    if not columns:
        # A read-only transaction does not prevent a superuser from running COPY … TO PROGRAM.
        raise QueryRefusedError("only statements that return rows are allowed")
    if statement.get_parameters():
        raise QueryRefusedError("parameters such as $1 have no value here: write the value into the statement")
    try:
        rows = await statement.fetch(timeout=_TIMEOUT_S)
    except (OverflowError, ValueError) as error:
        raise QueryRefusedError(f"a value cannot be read: {one_line(error)}; cast it to text") from error
    for (name, value), text in beyond.items():
        text.data = await connection.fetchval(f"SELECT $1::{name}::text", value)
    return Answer(columns, [tuple(row) for row in rows])


_EPOCH, _MICROSECOND = datetime(2000, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_TIMES: Mapping[str, tuple[date, timedelta]] = {
    "date": (_EPOCH.date(), timedelta(days=1)),
    "timestamp": (_EPOCH.replace(tzinfo=None), _MICROSECOND),
    "timestamptz": (_EPOCH, _MICROSECOND),
}
"""Epoch and unit of dates and times in Postgres."""

_BeyondPython: TypeAlias = dict[tuple[str, tuple[int]], UserString]
"""Texts of dates and times that Python cannot represent, such as infinity, by type and value."""


async def _read_times(connection: Connection) -> _BeyondPython:
    """Let a connection read any date and time; return placeholders for those that Python cannot represent."""
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
