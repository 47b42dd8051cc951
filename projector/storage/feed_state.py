"""Reads how far the changes are published, for people and monitoring."""

from projector.domain.summary import FeedState
from projector.storage.checkpoints import PROJECTION
from projector.storage.connection import Connection

_STATE = """
SELECT shard, commits - feed.commit_no + (feed.endpoint_id IS NOT NULL)::integer AS lag_commits,
       feed.stream, feed.commit_no, feed.advanced_at, feed.error, feed.error_since, feed.lost_commits,
       feed.committed_at, feed.commit_no + (feed.endpoint_id IS NULL)::integer AS next_commit_no
FROM projector_feed AS feed JOIN projector_checkpoint USING (projection, shard)
WHERE projection = $1 ORDER BY feed.stream_seq DESC, shard
"""
# Not part of the query above: Citus does not join tables of the coordinator with a part of each shard.
_LAG_SECONDS = """
SELECT coalesce(round(greatest(extract(epoch FROM clock_timestamp() - committed_at), 0), 3), 0)::float8
FROM endpoint_change WHERE shard = $1 AND committed_at >= $2 AND commit_no >= $3 ORDER BY commit_no LIMIT 1
"""


async def state(connection: Connection, prefix: str | None) -> FeedState | None:
    """Return how far the changes of all shards are published under a prefix; None if they are not to be."""
    if prefix is None:
        return None
    rows = await connection.fetch(_STATE, PROJECTION)
    if not rows:
        return FeedState(prefix)
    lags_s = [
        await connection.fetchval(_LAG_SECONDS, row["shard"], row["committed_at"], row["next_commit_no"])
        for row in rows
        if row["lag_commits"]
    ]
    failed = min((row for row in rows if row["error"]), key=lambda row: row["error_since"], default=None)
    return FeedState(
        prefix=prefix,
        stream=rows[0]["stream"],
        cursor=min(row["commit_no"] for row in rows),
        lag_commits=sum(row["lag_commits"] for row in rows),
        lag_seconds=max((lag_s or 0.0 for lag_s in lags_s), default=0.0),
        advanced_at=max(row["advanced_at"] for row in rows),
        error=None if failed is None else failed["error"],
        error_since=None if failed is None else failed["error_since"],
        lost_commits=sum(row["lost_commits"] for row in rows),
    )
