"""How far the changes are published, for people to read."""

from typing import Any

from projector.domain.summary import FeedState
from projector.storage.checkpoints import PROJECTION, SHARD
from projector.storage.connection import Connection

_STATE = """
SELECT feed.stream, feed.commit_no, commits - feed.commit_no + (feed.endpoint_id IS NOT NULL)::integer AS lag_commits,
       coalesce(round(greatest(extract(epoch FROM clock_timestamp() - oldest.committed_at), 0), 3), 0)::float8
           AS lag_seconds,
       feed.advanced_at, feed.error, feed.error_since, feed.lost_commits
FROM projector_feed AS feed JOIN projector_checkpoint USING (projection, shard)
LEFT JOIN LATERAL (
    SELECT change.committed_at FROM endpoint_change AS change
    WHERE change.shard = feed.shard AND change.committed_at >= feed.committed_at
      AND change.commit_no >= feed.commit_no + (feed.endpoint_id IS NULL)::integer
    ORDER BY change.commit_no LIMIT 1
) AS oldest ON true
WHERE projection = $1 AND shard = $2
"""


async def read(connection: Connection, prefix: str | None) -> FeedState | None:
    """Return how far the changes are published under a prefix; None if they are not to be."""
    if prefix is None:
        return None
    row: Any = await connection.fetchrow(_STATE, PROJECTION, SHARD)
    return FeedState(prefix, *row) if row else FeedState(prefix)
