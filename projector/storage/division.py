"""Replaces the checkpoints of a projection, and the cursors of its feed, with those of another number of shards."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from projector.domain.checkpoint import Checkpoint
from projector.errors import CheckpointMovedError
from projector.storage import checkpoints, dialect, feed_state, locks, version
from projector.storage.connection import Connection, connect, disconnect
from projector.storage.failures import translated
from projector.storage.wire import set_codecs

_COPY = """
CREATE TEMPORARY TABLE divided ON COMMIT DROP AS
SELECT * FROM projector_checkpoint WHERE projection = $1
"""
_DELETE = "DELETE FROM projector_checkpoint WHERE projection = $1"
# Numbers of commits, generations and times only grow, since readers and leaders have noted them.
# The division counts as a commit: a publisher that was paused meanwhile finds its cursor moved.
_INSERT = """
INSERT INTO projector_checkpoint (
    projection, shard, shards, stream, stream_created_at, position, anchor_stored_at, anchor_hash,
    rules_version, revision, originators, skipped, generation, advanced_at, commits, changes_since
)
SELECT furthest.projection, number, $1::integer, stream, stream_created_at, position, anchor_stored_at, anchor_hash,
       rules_version, revision, originators, CASE number WHEN 0 THEN counted.skipped ELSE '{}' END,
       total.generation + 1, total.advanced_at, total.commits + 1, total.changes_since
FROM generate_series(0, $1 - 1) AS number,
     (SELECT * FROM divided ORDER BY position DESC, shard LIMIT 1) AS furthest,
     (SELECT max(generation) AS generation, max(advanced_at) AS advanced_at, max(commits) AS commits,
             CASE WHEN count(changes_since) = count(*) THEN max(changes_since) END AS changes_since
      FROM divided) AS total,
     (SELECT coalesce(jsonb_object_agg(name, count), '{}') AS skipped
      FROM (
          SELECT name, sum(value::bigint) AS count
          FROM divided, jsonb_each_text(divided.skipped) AS each (name, value) GROUP BY name
      ) AS summed) AS counted
"""
# Every log is published to its end, where the new logs begin. This reads the new checkpoints, so it runs after them.
_MOVE_CURSORS = """
INSERT INTO projector_feed (
    projection, shard, prefix, stream, stream_seq, commit_no, committed_at, lost_commits, lost_at
)
SELECT projection, shard, latest.prefix, latest.stream, latest.stream_seq,
       checkpoint.commits, coalesce(greatest(changes_since, advanced_at), clock_timestamp()),
       CASE shard WHEN 0 THEN lost.commits ELSE 0 END, CASE shard WHEN 0 THEN lost.at END
FROM projector_checkpoint AS checkpoint,
     (SELECT prefix, stream, max(stream_seq) AS stream_seq FROM projector_feed WHERE projection = $1
      GROUP BY prefix, stream ORDER BY stream IS NULL, max(projector_feed.advanced_at) DESC LIMIT 1) AS latest,
     (SELECT coalesce(sum(lost_commits), 0)::bigint AS commits, max(lost_at) AS at
      FROM projector_feed WHERE projection = $1) AS lost
WHERE projection = $1
ON CONFLICT (projection, shard) DO UPDATE SET (
    prefix, stream, stream_seq, commit_no, committed_at, lost_commits, lost_at,
    position, endpoint_id, facet, advanced_at, error, error_since
) = (
    excluded.prefix, excluded.stream, excluded.stream_seq, excluded.commit_no, excluded.committed_at,
    excluded.lost_commits, excluded.lost_at, NULL, NULL, NULL, now(), NULL, NULL
)
"""
_DROP_CURSORS = "DELETE FROM projector_feed WHERE projection = $1 AND shard >= $2"


class Shards:
    """The shards of a database from which every projector is kept out."""

    def __init__(self, connection: Connection) -> None:
        """Use a connection that holds the locks."""
        self._connection = connection

    async def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints, in the order of the shards; none if nothing was ever folded."""
        with translated():
            return await checkpoints.read_all(self._connection)

    async def begin(self, first: Sequence[Checkpoint]) -> None:
        """Write the first checkpoints."""
        with translated():
            async with self._connection.transaction():
                for checkpoint in first:
                    await checkpoints.begin(self._connection, checkpoint)

    async def unpublished(self) -> int:
        """Return how many commits are to be published and are not."""
        with translated():
            state = await feed_state.state(self._connection, prefix="")
        return 0 if state is None else state.lag_commits or 0

    async def divide(self, shards: int, at: int) -> None:
        """Replace the checkpoints, all of which have folded the stream through a position, and the cursors.

        Raises:
            CheckpointMovedError: one is further, although no projector runs.
        """
        with translated():
            async with self._connection.transaction():
                found, _ = await checkpoints.hold_all(self._connection)
                furthest = max(checkpoint.position for checkpoint in found)
                if furthest != at:
                    raise CheckpointMovedError(expected=at, found=furthest)
                await self._connection.execute(_COPY, checkpoints.PROJECTION)
                await self._connection.execute(_DELETE, checkpoints.PROJECTION)
                await self._connection.execute(_INSERT, shards)
                await self._connection.execute(_MOVE_CURSORS, checkpoints.PROJECTION)
                await self._connection.execute(_DROP_CURSORS, checkpoints.PROJECTION, shards)


async def count(url: str) -> int:
    """Return the number of shards of the projection."""
    async with version.opened(url, purpose="shards") as connection:
        return await checkpoints.count_shards(connection)


@asynccontextmanager
async def opened(url: str, shards: int) -> AsyncIterator[Shards]:
    """Keep every projector out for the length of a block, which changes the number of shards to `shards`.

    Raises:
        ProjectorRunningError: a projector runs.
        RebuildRunningError: a rebuild, a verification or a retry is in progress.
        DatabaseUnavailableError: what was committed last cannot be read yet.
    """
    connection = await connect(url, purpose="division", settings=version.READ_WRITE)
    try:
        with translated():
            await version.check(connection)
            await set_codecs(connection)
            await locks.keep_rebuilds_out(connection)
            found = await checkpoints.count_shards(connection)
            await locks.keep_projectors_out(connection, max(found, shards))
            await (await dialect.choose(connection)).settle(connection)  # the shards may have to be folded further
        yield Shards(connection)
    finally:
        await disconnect(connection)
