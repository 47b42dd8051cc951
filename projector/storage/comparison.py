"""How the live tables differ from the staging tables, and the statements that make them equal."""

from collections.abc import Collection

import asyncpg

from projector.domain.differences import Differences, RowDifference
from projector.storage.connection import Connection
from projector.storage.dialect import Dialect
from projector.storage.tables import endpoint_state
from projector.storage.wire import decode_json

TABLE = "endpoint_state_rebuild"
DEAD_LETTER_TABLE = "dead_letter_rebuild"
_, *_OTHERS = (column.name for column in endpoint_state.columns)


def _each(template: str) -> str:
    """Return the template for each column but the key."""
    return ", ".join(template.format(name=name) for name in _OTHERS)


_DIFFERS = f"""
(found.endpoint_id, {_each("found.{name}")}) IS DISTINCT FROM (implied.endpoint_id, {_each("implied.{name}")})
"""
_COMPARE = f"""
DELETE FROM endpoint_candidate;
INSERT INTO endpoint_candidate
SELECT endpoint_id FROM endpoint_state AS found FULL JOIN {TABLE} AS implied USING (endpoint_id) WHERE {_DIFFERS}
"""
_ADD_CANDIDATES = "INSERT INTO endpoint_candidate SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
BOTH = f"LEFT JOIN endpoint_state AS found USING (endpoint_id) LEFT JOIN {TABLE} AS implied USING (endpoint_id)"
_DIFFERENCES = f"""
SELECT endpoint_id, 0 AS shard,
       CASE WHEN found.endpoint_id IS NULL THEN 'missing'
            WHEN implied.endpoint_id IS NULL THEN 'extra'
            ELSE 'different' END AS kind,
       array_remove(ARRAY[
           {_each("CASE WHEN found.{name} IS DISTINCT FROM implied.{name} THEN '{name}' END")}
       ], NULL) AS columns
FROM endpoint_candidate {BOTH}
WHERE {_DIFFERS}
"""
_COUNT_IMPLIED = f"SELECT count(*) FROM {TABLE}"
_COUNT_ROWS = """
SELECT count(*) FILTER (WHERE kind = 'missing') AS missing,
       count(*) FILTER (WHERE kind = 'extra') AS extra,
       count(*) FILTER (WHERE kind = 'different') AS different
FROM endpoint_difference
"""
_COUNT_COLUMNS = """
SELECT name, count(*) FROM endpoint_difference, unnest(columns) AS name
WHERE kind = 'different' GROUP BY name ORDER BY count(*) DESC, name
"""
_SHOW = f"""
SELECT endpoint_id, kind, columns, to_jsonb(found) AS found, to_jsonb(implied) AS implied
FROM endpoint_difference {BOTH}
WHERE $1::text IS NULL OR endpoint_id = $1
ORDER BY endpoint_id LIMIT $2
"""

_IMPLIED = f"FROM endpoint_difference AS difference JOIN {TABLE} AS implied USING (endpoint_id) WHERE kind ="
_APPLY = f"""
DELETE FROM endpoint_state USING endpoint_difference AS difference
WHERE difference.kind = 'extra' AND endpoint_state.endpoint_id = difference.endpoint_id;

UPDATE endpoint_state AS found SET {_each("{name} = implied.{name}")}
{_IMPLIED} 'different' AND found.endpoint_id = difference.endpoint_id;

INSERT INTO endpoint_state (endpoint_id, {_each("{name}")})
SELECT endpoint_id, {_each("implied.{name}")} {_IMPLIED} 'missing';
"""
_RESOLVE_DEAD_LETTERS = f"""
UPDATE dead_letter SET state = 'resolved', closed_at = now()
WHERE state = 'parked' AND stream = $1 AND position = ANY ($2::bigint[])
  AND NOT EXISTS (
      SELECT FROM {DEAD_LETTER_TABLE} AS again
      WHERE again.stream = dead_letter.stream AND again.position = dead_letter.position
  )
"""
_PARK_DEAD_LETTERS = f"""
INSERT INTO dead_letter AS known SELECT * FROM {DEAD_LETTER_TABLE}
ON CONFLICT (stream, position) DO UPDATE
SET state = 'parked', closed_at = NULL, reason = excluded.reason, detail = excluded.detail,
    subject = excluded.subject, headers = excluded.headers, payload = excluded.payload, stored_at = excluded.stored_at
WHERE known.state <> 'discarded' OR known.stored_at <> excluded.stored_at
"""


async def compare(connection: Connection, dialect: Dialect) -> None:
    """Find the rows that may differ, within a transaction."""
    await connection.execute(dialect.begin_comparison + _COMPARE)


async def differences(
    connection: Connection, dialect: Dialect, saved: Collection[str], *, show: int, endpoint_id: str | None
) -> Differences:
    """Compare the rows that `compare` found and those of endpoints saved since; the caller holds the checkpoint.

    The result has up to `show` rows, or the row of one endpoint.
    """
    await connection.execute(_ADD_CANDIDATES, list(saved))
    await dialect.collect_differences(connection, _DIFFERENCES)
    implied = await connection.fetchval(_COUNT_IMPLIED)
    (counts,) = await connection.fetch(_COUNT_ROWS)
    by_column = {row[0]: row[1] for row in await connection.fetch(_COUNT_COLUMNS)}
    shown = await connection.fetch(_SHOW, endpoint_id, 1 if endpoint_id is not None else show)
    return Differences(
        **dict(counts.items()),
        compared=implied + counts["extra"],
        by_column=by_column,
        shown=list(map(_row_difference, shown)),
    )


async def apply(connection: Connection, stream: str, retried: Collection[int]) -> None:
    """Change the rows that differ, and settle the dead letters at the positions `retried`."""
    await connection.execute(_APPLY)
    await connection.execute(_RESOLVE_DEAD_LETTERS, stream, retried)
    await connection.execute(_PARK_DEAD_LETTERS)


def _row_difference(row: asyncpg.Record) -> RowDifference:
    found, implied = (decode_json(row[side] or b"{}") for side in ("found", "implied"))
    columns = {name: (found.get(name), implied.get(name)) for name in row["columns"]}
    return RowDifference(row["endpoint_id"], row["kind"], columns)
