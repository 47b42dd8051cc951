"""The statements of the hot path, for whichever table of endpoints is being built.

Each touches endpoints by `endpoint_id` only, so that the table can be distributed by it.
They come per set of facets, because half of a write's cost is in columns that did not change.
"""

from dataclasses import dataclass
from functools import cache

from projector.domain.endpoint import FacetSet
from projector.storage.columns import FACET_COLUMNS, FacetColumns

STAGE = """
CREATE TEMPORARY TABLE endpoint_change ON COMMIT DELETE ROWS AS
SELECT 0 AS part, * FROM endpoint_state WITH NO DATA
"""
"""Where changes wait to be merged, those of equal sets of facets together; one for each connection."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetStatements:
    """What to load and how to save the endpoints of which one set of facets is concerned."""

    facets: tuple[tuple[int, FacetColumns], ...]
    """The facets of the set, each with its index."""
    load: str
    """$1: endpoint ids. Gives endpoint_id, last_event_seq, last_event_at and the registers of each facet."""
    stage_columns: tuple[str, ...]
    merge: str
    """$1: the part of `endpoint_change` to merge."""


@cache
def for_facets(facets: FacetSet, table: str) -> FacetStatements:
    """Return the statements for a set of facets, against a table with the columns of `endpoint_state`."""
    chosen = tuple((index, columns) for index, columns in enumerate(FACET_COLUMNS) if facets >> index & 1)
    key = ("endpoint_id", "last_event_seq", "last_event_at")
    registers = tuple(columns.registers.name for _, columns in chosen)
    stored = (
        *key,
        *(column.name for _, columns in chosen for column in (*columns.columns, columns.registers)),
    )
    return FacetStatements(
        facets=chosen,
        load=f"SELECT {', '.join((*key, *registers))} FROM {table} WHERE endpoint_id = ANY($1::text[])",  # noqa: S608 - names of ours
        stage_columns=("part", *stored),
        merge=f"""
MERGE INTO {table} AS state
USING (SELECT {", ".join(stored)} FROM endpoint_change WHERE part = $1) AS change
ON state.endpoint_id = change.endpoint_id
WHEN MATCHED THEN UPDATE SET {", ".join(f"{name} = change.{name}" for name in stored[1:])}
WHEN NOT MATCHED THEN INSERT ({", ".join(stored)})
VALUES ({", ".join(f"change.{name}" for name in stored)})
""",  # noqa: S608 - names of ours
    )
