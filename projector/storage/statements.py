"""The statements of the hot path, for whichever table of endpoints is being built.

Each touches endpoints by `endpoint_id` only, so that the table can be distributed by it.
There is one to load and one to save, whatever the batch changes: a round trip for each kind of change would be
what the projector waits for.
"""

from functools import cache
from typing import Any

from sqlalchemy import Column, DefaultClause

from projector.storage.columns import FACET_COLUMNS, LAST_EVENT

CREATE_CHANGES = """
CREATE TEMPORARY TABLE endpoint_change ON COMMIT DELETE ROWS AS
SELECT 0 AS part, * FROM endpoint_state WITH NO DATA
"""
"""Where changes wait to be merged, those that are saved together in one part; one table for each connection.

The columns of a facet that did not change stay null: half of a write's cost is in columns that did not change.
"""

_KEY = ("endpoint_id", *(column.name for column in LAST_EVENT))

CHANGE_COLUMNS: tuple[str, ...] = (
    "part",
    *_KEY,
    *(column.name for facet in FACET_COLUMNS for column in facet.all_columns),
)
"""The columns of `endpoint_change`, in the order in which a change is sent."""


def park(table: str) -> str:
    """Return the statement that parks a message in a table with the columns of `dead_letter`."""
    return f"""
INSERT INTO {table} AS parked (stream, position, subject, headers, payload, stored_at, reason, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (stream, position) DO UPDATE
SET reason = excluded.reason, detail = excluded.detail, attempts = parked.attempts + 1,
    subject = excluded.subject, headers = excluded.headers, payload = excluded.payload, stored_at = excluded.stored_at,
    state = CASE WHEN parked.stored_at = excluded.stored_at THEN parked.state ELSE 'parked' END
"""  # noqa: S608 - names of ours


@cache
def load(table: str) -> str:
    """Return the query that reads endpoints to fold on.

    $1: endpoint ids, $2: the set of facets that is needed of each.
    Gives endpoint_id, last_event_seq, last_event_at and the registers of each facet, null where they are not needed.
    """
    registers = ", ".join(
        f"CASE WHEN needed.facets & {1 << index} <> 0 THEN state.{facet.registers.name} END"
        for index, facet in enumerate(FACET_COLUMNS)
    )
    return f"""
SELECT {", ".join(f"state.{name}" for name in _KEY)}, {registers}
FROM unnest($1::text[], $2::integer[]) AS needed (endpoint_id, facets)
CROSS JOIN LATERAL (SELECT * FROM {table} WHERE endpoint_id = needed.endpoint_id OFFSET 0) AS state
"""  # noqa: S608 - names of ours


@cache
def merge(table: str) -> str:
    """Return the statement that merges a part of `endpoint_change`, which is $1, into a table.

    A facet whose registers were not sent did not change.
    It is no MERGE because that joins, and on a table that was small when it was planned the join reads all of it.
    """
    facet_columns = [(facet, column) for facet in FACET_COLUMNS for column in facet.all_columns]
    updates = [f"{name} = excluded.{name}" for name in _KEY[1:]] + [
        f"{column.name} = CASE WHEN excluded.{facet.registers.name} IS NULL "
        f"THEN state.{column.name} ELSE excluded.{column.name} END"
        for facet, column in facet_columns
    ]
    values = [f"change.{name}" for name in _KEY] + [_inserted(column) for _, column in facet_columns]
    return f"""
INSERT INTO {table} AS state ({", ".join(CHANGE_COLUMNS[1:])})
SELECT {", ".join(values)} FROM endpoint_change AS change WHERE part = $1
ON CONFLICT (endpoint_id) DO UPDATE SET {", ".join(updates)}
"""  # noqa: S608 - names of ours


def _inserted(column: Column[Any]) -> str:
    """Return what a new row gets in a column: the default where its facet was never changed."""
    default = column.server_default
    if not isinstance(default, DefaultClause):
        return f"change.{column.name}"
    return f"coalesce(change.{column.name}, {default.arg})"
