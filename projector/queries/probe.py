"""Queries about the projection as a whole."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import asyncpg

from projector.domain.summary import Census, ShardProgress, Slice, Summary
from projector.errors import OtherStreamError
from projector.storage import dialect, feed_state, locks, version
from projector.storage.checkpoints import PROJECTION
from projector.storage.connection import Connection, connect
from projector.storage.dialect import Dialect
from projector.storage.failures import translated
from projector.storage.wire import decode_json

_SETTINGS: Mapping[str, str] = {
    **version.READ_ONLY,
    # Monitoring must not slow down other clients: a slow query is cancelled and retried later.
    "statement_timeout": "3s",
    "lock_timeout": "1s",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
_COMMAND_TIMEOUT_S = 4.0

_CHECKPOINTS = """
SELECT shard, stream, position, rules_version, skipped::text, anchor_stored_at, advanced_at, lag_messages
FROM projector_checkpoint WHERE projection = $1 ORDER BY position, shard
"""
_CHANGES_SINCE = "SELECT endpoint_change_since()"
_PARKED = """
SELECT reason, count(*) FROM dead_letter WHERE stream = $1 AND state = 'parked' GROUP BY reason ORDER BY reason
"""
_PROGRESS = re.compile(r"(?: (\d+)/(\d+))?$")
_LATEST_DEAD_LETTERS = """
SELECT position, reason, left(detail, 300) AS detail, subject, parked_at
FROM dead_letter WHERE stream = $1 AND state = 'parked' ORDER BY position DESC LIMIT $2
"""
_VERSION = "coalesce(app_version, '(unknown)')"
_CENSUS = "SELECT {kind}, count(*) FROM endpoint_state GROUP BY 1 ORDER BY 2 DESC, 1"
# Versions are truncated for display: one may be as long as a message.
# The server measures the duration: a busy client would add its own delays.
COUNT = f"""
SELECT connectivity_status, left({_VERSION}, 100), config_status, count(*),
       extract(epoch FROM clock_timestamp() - statement_timestamp())::float8
FROM endpoint_state WHERE ctid >= $1 AND ctid < $2
GROUP BY 1, 2, 3
"""
_COUNT_TIMEOUT = "SET LOCAL statement_timeout = '80ms'"
"""Pages that are read from disk can take much longer than those before them."""


class Probe:
    """A connection for monitoring, cheap to query every few seconds; opened before use and again after an error."""

    def __init__(self, url: str, stream: str, *, purpose: str, publish: str | None = None) -> None:
        """Open nothing yet; `purpose` names the connection, `publish` is the prefix of published changes."""
        self._url = url
        self._publish = publish
        self._stream = stream
        self._purpose = purpose
        self._connection: Connection
        self._dialect: Dialect
        self._opened = ExitStack()

    async def open(self) -> None:
        """Connect, or reconnect."""
        await self.close()
        self._connection = await connect(
            self._url, purpose=self._purpose, settings=_SETTINGS, command_timeout_s=_COMMAND_TIMEOUT_S
        )
        self._opened.callback(self._connection.terminate)
        with translated():
            await version.check(self._connection)
            self._dialect = await dialect.choose(self._connection)

    async def close(self) -> None:
        """Disconnect at once."""
        self._opened.close()

    async def summary(self) -> Summary:
        """Return the state of the projection without the number of endpoints."""
        with translated():
            return await _summary(self._connection, self._stream, self._publish)

    async def position(self) -> int:
        """Return the position through which every shard has folded, or 0 if there is no checkpoint."""
        with translated():
            rows = await _checkpoints(self._connection, self._stream)
        return rows[0]["position"] if rows else 0

    async def latest_dead_letters(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the parked dead letters, the newest first."""
        with translated():
            return [dict(row) for row in await self._connection.fetch(_LATEST_DEAD_LETTERS, self._stream, limit)]

    async def pages(self) -> int:
        """Return how many pages the table has; in the largest partition or shard, if it has several."""
        with translated():
            return int(await self._connection.fetchval(self._dialect.pages))

    async def count(self, first: int, end: int) -> Slice | None:
        """Count the endpoints on the pages from `first` up to, but not including, `end`; None: it took too long."""
        with translated():
            try:
                async with self._connection.transaction():
                    await self._connection.execute(_COUNT_TIMEOUT)
                    rows = await self._connection.fetch(COUNT, (first, 0), (end, 0))
            except asyncpg.QueryCanceledError:
                return None
        return Slice([row[:4] for row in rows], max((row[4] for row in rows), default=0.0))


async def summary(url: str, stream: str, *, publish: str | None = None) -> Summary:
    """Return the state of the projection with the number of endpoints, which reads the whole table.

    `publish` is the prefix of published changes.
    """
    async with version.opened(url) as connection:
        found = await _summary(connection, stream, publish)
        return found._replace(endpoints=await connection.fetchval("SELECT count(*) FROM endpoint_state"))


async def census(url: str) -> Census:
    """Count the endpoints by status and by version, which reads the whole table."""
    async with version.opened(url) as connection:
        by_status = await connection.fetch(_CENSUS.format(kind="connectivity_status"))
        by_version = await connection.fetch(_CENSUS.format(kind=_VERSION))
    return Census({row[0]: row[1] for row in by_status}, {row[0]: row[1] for row in by_version})


async def _summary(connection: Connection, stream: str, publish: str | None) -> Summary:
    rows = await _checkpoints(connection, stream)
    shards = [
        ShardProgress(
            shard=row["shard"],
            checkpoint_seq=row["position"],
            lag_messages=row["lag_messages"],
            last_commit_at=row["advanced_at"],
            active=await locks.holder(connection, locks.LEADER_LOCK, row["shard"]),
        )
        for row in rows
    ]
    leaders = [shard.active for shard in shards] or [await locks.holder(connection, locks.LEADER_LOCK)]
    # A retry of dead letters shares the lock of rebuilds.
    rebuild = await locks.holder(connection, locks.REBUILD_LOCK, exclusive=True)
    return Summary(
        position=rows[0]["position"] if rows else 0,
        shards=sorted(shards, key=lambda shard: shard.shard),
        rules_version=rows[0]["rules_version"] if rows else None,
        skipped=_sum(decode_json(row["skipped"]) for row in rows),
        dead_letters={row[0]: row[1] for row in await connection.fetch(_PARKED, stream)},
        last_event_stored_at=rows[0]["anchor_stored_at"] if rows else None,
        last_commit_at=max((row["advanced_at"] for row in rows), default=None),
        changes_since=await connection.fetchval(_CHANGES_SINCE),
        publish=await feed_state.state(connection, publish),
        active=None if None in leaders else leaders[0],
        rebuild=rebuild and _progress(rebuild),
    )


async def _checkpoints(connection: Connection, stream: str) -> Sequence[asyncpg.Record]:
    """Return the rows of the checkpoint, the lowest position first; none if nothing was ever folded.

    Raises:
        OtherStreamError: they are of another stream.
    """
    rows: Sequence[asyncpg.Record] = await connection.fetch(_CHECKPOINTS, PROJECTION)
    if rows and rows[0]["stream"] != stream:
        raise OtherStreamError(found=rows[0]["stream"], wanted=stream)
    return rows


def _sum(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    return dict(sum(map(Counter, counts), Counter()))


def _progress(rebuild: Mapping[str, Any]) -> dict[str, Any]:
    """Return the progress of a rebuild, which is part of the name of its connection."""
    position, target = _PROGRESS.findall(rebuild["application"])[0]
    return {"position": int(position or 0), "target": int(target or 0), "since": rebuild["since"]}
