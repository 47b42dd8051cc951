"""The rows of the checkpoint, one for each shard."""

from typing import Any, NamedTuple

import asyncpg

from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.rules import Rules
from projector.domain.shards import WHOLE, Shard
from projector.errors import DatabaseRefusedError, OtherStreamError, PoisonError, ShardsChangedError
from projector.storage.connection import Connection
from projector.storage.failures import translate
from projector.storage.wire import decode_json

PROJECTION = "endpoint_state"

_READ = "SELECT * FROM projector_checkpoint WHERE projection = $1 AND shard = $2"
_READ_ALL = "SELECT * FROM projector_checkpoint WHERE projection = $1 ORDER BY shard"
_STREAM = "SELECT stream FROM projector_checkpoint WHERE projection = $1 ORDER BY shard LIMIT 1"
_COUNT_SHARDS = """
SELECT coalesce(max(shards), 1) AS shards, count(*) AS rows FROM projector_checkpoint WHERE projection = $1
"""
_HOLD = """
SELECT *, greatest(clock_timestamp(), advanced_at) AS committing_at
FROM projector_checkpoint WHERE projection = $1 AND shard = $2 FOR UPDATE
"""
# In order, so that two transactions that hold every shard cannot deadlock.
_HOLD_ALL = """
SELECT *, greatest(clock_timestamp(), advanced_at) AS committing_at
FROM projector_checkpoint WHERE projection = $1 ORDER BY shard FOR UPDATE
"""
_NOW = "SELECT clock_timestamp()"
_COLUMNS = """
stream, stream_created_at, position, anchor_stored_at, anchor_hash, rules_version, revision, originators, skipped,
generation"""
_INSERT = f"""
INSERT INTO projector_checkpoint (projection, shard, shards, {_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (projection, shard) DO
"""
_REPLACE = f"UPDATE SET (shards, {_COLUMNS}) = ROW ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
# A commit that does not log its changes ends the time for which the log is complete.
_COUNT_COMMIT = """
commits = $3, advanced_at = $4, changes_since = CASE WHEN $5::boolean THEN coalesce(changes_since, $4) END
"""
_ADVANCE = f"""
UPDATE projector_checkpoint
SET {_COUNT_COMMIT}, position = $8, anchor_stored_at = $9, anchor_hash = $10, skipped = $11, stream_created_at = $12
WHERE projection = $1 AND shard = $2 AND stream = $6 AND position = $7
"""
_COUNT = f"""
UPDATE projector_checkpoint SET {_COUNT_COMMIT}, generation = generation + $6 WHERE projection = $1 AND shard = $2
"""
# Informational only: skip if locked, and do not wait for a synchronous standby.
_WRITE_ACTIVITY = """
UPDATE projector_checkpoint
SET active_since = $3, lag_messages = coalesce($4, lag_messages), lag_seen_at = coalesce($5, lag_seen_at)
WHERE (projection, shard) IN (
    SELECT projection, shard FROM projector_checkpoint WHERE projection = $1 AND shard = $2 FOR UPDATE SKIP LOCKED
) AND set_config('synchronous_commit', 'off', true) = 'off'
"""


class Lag(NamedTuple):
    """Number of messages that were not folded at a given time."""

    messages: int
    seen_at: int
    """Unix ms."""


class Commit(NamedTuple):
    """The commit that the present transaction is to become."""

    shard: int
    number: int
    """One more than that of the commit before."""
    at: int
    """Unix ms; never earlier than the commit before."""
    log_is_on: bool
    """Whether the commit before logged its changes."""


async def read(connection: Connection, shard: int = 0) -> Checkpoint | None:
    """Return the checkpoint of a shard, or None if nothing was ever folded."""
    row = await connection.fetchrow(_READ, PROJECTION, shard)
    return None if row is None else _from_row(row)


async def read_all(connection: Connection) -> list[Checkpoint]:
    """Return the checkpoints of all shards, in their order; none if nothing was ever folded."""
    return [_from_row(row) for row in await connection.fetch(_READ_ALL, PROJECTION)]


async def count_shards(connection: Connection) -> int:
    """Return the number of shards of the projection; raises DatabaseRefusedError if a row is missing."""
    ((shards, rows),) = await connection.fetch(_COUNT_SHARDS, PROJECTION)
    if rows not in (0, shards):
        raise DatabaseRefusedError(
            f"projector_checkpoint has {rows} rows for {shards} shards; rows were deleted or changed by hand: "
            "restore them from a backup, or empty projector_checkpoint, endpoint_change and projector_feed "
            "and run `projector rebuild`: the numbers of commits begin anew"
        )
    return int(shards)


async def check_shards(connection: Connection, expected: int) -> None:
    """Check the number of shards of the projection; raises ShardsChangedError if it is another one."""
    found = await count_shards(connection)
    if found != expected:
        raise ShardsChangedError(expected=expected, found=found)


async def check_stream(connection: Connection, stream: str) -> None:
    """Check that the tables were built from a stream, or from none; raises OtherStreamError."""
    found = await connection.fetchval(_STREAM, PROJECTION)
    if found not in (None, stream):
        raise OtherStreamError(found=found, wanted=stream)


async def hold(connection: Connection, shard: int = 0) -> tuple[Checkpoint | None, Commit]:
    """Lock a checkpoint until the transaction ends; return it, and the commit that the transaction will be."""
    row = await connection.fetchrow(_HOLD, PROJECTION, shard)
    if row is None:
        return None, await _first_commit(connection, shard)
    return _from_row(row), _next_commit(row)


async def hold_all(connection: Connection) -> tuple[list[Checkpoint], list[Commit]]:
    """Lock the checkpoints of all shards until the transaction ends; return them, and the commit of each.

    If nothing was ever folded there is no checkpoint, but one commit.
    """
    rows = await connection.fetch(_HOLD_ALL, PROJECTION)
    if not rows:
        return [], [await _first_commit(connection, WHOLE.number)]
    return list(map(_from_row, rows)), list(map(_next_commit, rows))


async def begin(connection: Connection, checkpoint: Checkpoint) -> None:
    """Write the first checkpoint, unless another projector has written one."""
    await _write(connection, f"{_INSERT} NOTHING", *_to_row(checkpoint))


async def replace(connection: Connection, checkpoint: Checkpoint, commit: Commit, *, logged: bool) -> None:
    """Write a checkpoint over any other; the caller must hold it. `logged`: the commit writes its changes."""
    await _write(connection, _INSERT + _REPLACE, *_to_row(checkpoint))
    await _count(connection, commit, logged=logged)


async def advance(
    connection: Connection, before: Checkpoint, after: Checkpoint, commit: Commit, *, logged: bool
) -> bool:
    """Move the checkpoint by compare-and-set; return whether it was at `before`."""
    counted = (PROJECTION, commit.shard, commit.number, commit.at, logged)
    moved = (after.position, *_anchor(after), after.skipped, after.stream_created_at)
    return await _write(connection, _ADVANCE, *counted, before.stream, before.position, *moved) == "UPDATE 1"


async def write_activity(
    connection: Connection, shard: int, active_since: int, lag: Lag | None = None, timeout_s: float | None = None
) -> None:
    """Write when the leader took the lead (Unix ms), and its lag, for users to read."""
    lag_or_null = lag or (None, None)
    await _write(connection, _WRITE_ACTIVITY, PROJECTION, shard, active_since, *lag_or_null, timeout_s=timeout_s)


async def count_change(connection: Connection, commit: Commit, *, logged: bool) -> None:
    """Increment the generation, so that the leader drops prefetched state; the caller must hold the checkpoint."""
    await _count(connection, commit, logged=logged, generations=1)


async def _count(connection: Connection, commit: Commit, *, logged: bool, generations: int = 0) -> None:
    await _write(connection, _COUNT, PROJECTION, commit.shard, commit.number, commit.at, logged, generations)


async def _write(connection: Connection, statement: str, *values: Any, timeout_s: float | None = None) -> str:
    """Execute a statement that changes the row; a constraint or trigger that rejects it is no fault of a message."""
    try:
        status: str = await connection.execute(statement, *values, timeout=timeout_s)
    except asyncpg.PostgresError as error:
        rejection = translate(error)
        if isinstance(rejection, PoisonError):
            raise DatabaseRefusedError(
                f"Postgres rejects the checkpoint: {rejection.detail}; "
                "check the constraints and triggers of projector_checkpoint"
            ) from error
        raise
    return status


def _anchor(checkpoint: Checkpoint) -> tuple[int | None, bytes | None]:
    anchor = checkpoint.anchor
    return (None, None) if anchor is None else (anchor.stored_at, anchor.payload_hash)


def _to_row(checkpoint: Checkpoint) -> tuple[Any, ...]:
    return (
        PROJECTION,
        *checkpoint.shard,
        checkpoint.stream,
        checkpoint.stream_created_at,
        checkpoint.position,
        *_anchor(checkpoint),
        checkpoint.rules.version,
        checkpoint.rules.revision,
        checkpoint.rules.originators,
        checkpoint.skipped,
        checkpoint.generation,
    )


async def _first_commit(connection: Connection, shard: int) -> Commit:
    return Commit(shard, 1, await connection.fetchval(_NOW), log_is_on=False)


def _next_commit(row: asyncpg.Record) -> Commit:
    return Commit(row["shard"], row["commits"] + 1, row["committing_at"], row["changes_since"] is not None)


def _from_row(row: asyncpg.Record) -> Checkpoint:
    payload_hash = row["anchor_hash"]
    return Checkpoint(
        stream=row["stream"],
        stream_created_at=row["stream_created_at"],
        rules=Rules(version=row["rules_version"], revision=row["revision"], originators=tuple(row["originators"])),
        shard=Shard(row["shard"], row["shards"]),
        position=row["position"],
        anchor=None if payload_hash is None else Anchor(stored_at=row["anchor_stored_at"], payload_hash=payload_hash),
        skipped=decode_json(row["skipped"]),
        generation=row["generation"],
    )
