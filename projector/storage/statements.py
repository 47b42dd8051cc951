"""The statements of the hot path, for the live table or a staging table.

They address endpoints by `endpoint_id` only, so that the table can be distributed by it,
and one statement saves a whole batch.
"""

from functools import cache
from typing import Any

from sqlalchemy import Column, DefaultClause

from projector.storage.columns import FACET_COLUMNS, LAST_EVENT

LOADED_AT_ONCE = 500  # endpoints per query: one event may name 100,000, and the event loop must not block

_KEY = ("endpoint_id", *(column.name for column in LAST_EVENT))
_COLUMNS = tuple((facet, column) for facet in FACET_COLUMNS for column in facet.all_columns)

SAVED_COLUMNS: tuple[str, ...] = ("part", *_KEY, *(column.name for _, column in _COLUMNS))
"""The columns of the table from which rows are merged, in the order in which they are copied; a part for each save.

Those of a facet that did not change stay null: writing them would double the cost.
"""


_STAYS_DISCARDED = "parked.state = 'discarded' AND parked.stored_at = excluded.stored_at"
"""In a recreated stream the message at the position is another one."""


def create_like_live(table: str) -> str:
    """Return the statement that creates a table with the columns, constraints and indexes of the live one."""
    return f"""
CREATE UNLOGGED TABLE {table} (LIKE endpoint_state INCLUDING ALL EXCLUDING COMMENTS) WITH (fillfactor = 80)"""


def park(table: str) -> str:
    """Return the statement that parks a message in a table with the columns of `dead_letter`.

    One that was resolved is parked again: a shard that was behind has come to it. One that was discarded stays so.
    """
    return f"""
INSERT INTO {table} AS parked (stream, position, subject, headers, payload, stored_at, reason, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (stream, position) DO UPDATE
SET reason = excluded.reason, detail = excluded.detail, attempts = parked.attempts + 1,
    subject = excluded.subject, headers = excluded.headers, payload = excluded.payload, stored_at = excluded.stored_at,
    state = CASE WHEN {_STAYS_DISCARDED} THEN 'discarded' ELSE 'parked' END,
    closed_at = CASE WHEN {_STAYS_DISCARDED} THEN parked.closed_at END
"""


@cache
def load(table: str) -> str:
    """Return the query that reads endpoints to fold on.

    $1: endpoint ids, $2: for each of them, the set of facets needed.
    Returns endpoint_id, last_event_seq, last_event_at and the registers of each facet, null if not needed.
    """
    registers = ", ".join(
        f"CASE WHEN needed.facets & {1 << index} <> 0 THEN state.{facet.registers.name} END"
        for index, facet in enumerate(FACET_COLUMNS)
    )
    return f"""
SELECT {", ".join(f"state.{name}" for name in _KEY)}, {registers}
FROM unnest($1::text[], $2::integer[]) AS needed (endpoint_id, facets)
CROSS JOIN LATERAL (SELECT * FROM {table} WHERE endpoint_id = needed.endpoint_id OFFSET 0) AS state
"""


@cache
def load_shard(table: str) -> str:
    """Return the query that reads endpoints to fold on, all of one shard.

    $1: endpoint ids, $2: the set of facets that any of them needs. Returns the columns of `load`.
    """
    registers = ", ".join(
        f"CASE WHEN $2 & {1 << index} <> 0 THEN {facet.registers.name} END" for index, facet in enumerate(FACET_COLUMNS)
    )
    return f"""
SELECT {", ".join(_KEY)}, {registers} FROM {table} WHERE endpoint_id = ANY ($1)
"""


@cache
def merge(table: str, saved: str) -> str:
    """Return the statement that merges part $1 of the rows that were copied into a table into another one.

    A facet without registers did not change.
    This is not a MERGE, which joins: planned while the table was small, its join reads the whole table.
    """
    updates = [f"{name} = excluded.{name}" for name in _KEY[1:]] + [
        f"{column.name} = CASE WHEN excluded.{facet.registers.name} IS NULL "
        f"THEN state.{column.name} ELSE excluded.{column.name} END"
        for facet, column in _COLUMNS
    ]
    values = [f"saved.{name}" for name in _KEY] + [_inserted(column) for _, column in _COLUMNS]
    return f"""
INSERT INTO {table} AS state ({", ".join(SAVED_COLUMNS[1:])})
SELECT {", ".join(values)} FROM {saved} AS saved WHERE part = $1
ON CONFLICT (endpoint_id) DO UPDATE SET {", ".join(updates)}
"""


def _inserted(column: Column[Any]) -> str:
    """Return the value of a column in a new row: its default if the facet did not change."""
    default = column.server_default
    if not isinstance(default, DefaultClause):
        return f"saved.{column.name}"
    return f"coalesce(saved.{column.name}, {default.arg})"
