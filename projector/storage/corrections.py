"""Writes what a rebuild corrects into the log of changes, from the rows that differ."""

from collections.abc import Sequence

from sqlalchemy import Column, DefaultClause

from projector.domain.explanation import CORRECTED
from projector.domain.shards import shard_of
from projector.storage import change_log
from projector.storage.checkpoints import Commit
from projector.storage.columns import FACET_COLUMNS, LAST_EVENT, FacetColumns
from projector.storage.comparison import BOTH
from projector.storage.connection import Connection

_DIFFERENT = "SELECT endpoint_id FROM endpoint_difference"
_DIVIDE = """
UPDATE endpoint_difference AS difference SET shard = divided.shard
FROM unnest($1::text[], $2::integer[]) AS divided (endpoint_id, shard)
WHERE difference.endpoint_id = divided.endpoint_id
"""


async def log(connection: Connection, commits: Sequence[Commit]) -> None:
    """Write the differences that `comparison.differences` found as corrections, before they are applied.

    `commits` are those of every shard.
    """
    if len(commits) > 1:
        await _divide(connection, len(commits))
    for commit in commits:
        written = [await connection.execute(statement, *commit[:3]) for statement in _LOG]
        if any(tag != "INSERT 0 0" for tag in written):
            await change_log.notify(connection, commit)


async def _divide(connection: Connection, shards: int) -> None:
    """Note which shard each endpoint that differs belongs to."""
    endpoint_ids = [row[0] for row in await connection.fetch(_DIFFERENT)]
    await connection.execute(_DIVIDE, endpoint_ids, [shard_of(one, shards) for one in endpoint_ids])


def _statement(facet: FacetColumns) -> str:
    """Return the statement that logs the corrections of one facet; $1: shard, $2 and $3: number and time of the commit.

    A row whose latest event alone is wrong has no facet to name; it counts among those of the first facet.
    """
    names = [column.name for column in facet.all_columns]
    if facet is FACET_COLUMNS[0]:
        names += [column.name for column in LAST_EVENT]
    was, now = (_differing(facet, side) for side in ("found", "implied"))
    return f"""
INSERT INTO endpoint_change
    (shard, commit_no, committed_at, endpoint_id, facet, verdict, before, after, previous_event_seq, previous_event_at)
SELECT $1::integer, $2::bigint, $3::timestamptz, endpoint_id, '{facet.facet.name}', '{CORRECTED}',
       CASE WHEN kind = 'missing' THEN NULL WHEN kind = 'extra' THEN was ELSE nullif(was, '{{}}') END,
       CASE WHEN kind = 'extra' THEN NULL WHEN kind = 'missing' THEN now ELSE nullif(now, '{{}}') END,
       previous_event_seq, previous_event_at
FROM (
    SELECT endpoint_id, kind, {was} AS was, {now} AS now,
           coalesce(found.last_event_seq, 0) AS previous_event_seq, found.last_event_at AS previous_event_at
    FROM endpoint_difference {BOTH}
    WHERE shard = $1
      AND ({", ".join(f"found.{name}" for name in names)})
          IS DISTINCT FROM ({", ".join(f"implied.{name}" for name in names)})
) AS changed
"""


def _differing(facet: FacetColumns, side: str) -> str:
    """Return one side's values of the columns that differ, as an object."""
    return " || ".join(
        f"CASE WHEN {_side('found', column)} <> {_side('implied', column)} "
        f"THEN jsonb_build_object('{column.name}', {_side(side, column)}) ELSE '{{}}' END"
        for column in facet.columns
    )


def _side(side: str, column: Column[object]) -> str:
    """Return a column as JSON; in a row that does not exist, it has its default."""
    default = column.server_default
    value = f"{side}.{column.name}"
    if isinstance(default, DefaultClause):
        value = f"coalesce({value}, {default.arg})"
    return f"coalesce(to_jsonb({value}), 'null')"


_LOG = tuple(map(_statement, FACET_COLUMNS))
