"""Follow the changes of the table in SQL: each change once, in order, even across crashes.

    export PROJECTOR_DATABASE_URL=postgresql://…
    python examples/feed.py alerts

The work of this reader is to write every connect and disconnect into a table of its own, `connectivity_seen`.
Each shard has a log of its own, and so a cursor of its own.
The cursors move in the transaction that does the work, so a crash at any point repeats nothing and skips nothing.
"""

import asyncio
import os
import sys
from contextlib import suppress
from itertools import pairwise
from typing import Any

import asyncpg

POLL_S = 5.0
"""Notifications are a hint: one can be lost with the connection."""
AGAIN_S = 1.0

SETUP = """
CREATE TABLE IF NOT EXISTS feed_cursor (
    reader text, shard integer, commit_no bigint NOT NULL, committed_at timestamptz, PRIMARY KEY (reader, shard)
);
CREATE TABLE IF NOT EXISTS connectivity_seen (
    shard integer, commit_no bigint, position bigint, endpoint_id text, status text, event text, occurred_at timestamptz
);
"""
BEGIN = """
INSERT INTO feed_cursor
SELECT $1, coalesce(shard, 0), coalesce(commits, 0), coalesce(advanced_at, now())
FROM (SELECT 'a row if nothing was ever folded') AS one LEFT JOIN projector_checkpoint ON true
WHERE NOT EXISTS (SELECT FROM feed_cursor WHERE reader = $1)
"""
CURSORS = "SELECT shard, commit_no, committed_at FROM feed_cursor WHERE reader = $1 FOR UPDATE"
# This also finds shards that came and went while the reader was off. A new shard begins after every commit that was
# read: all commits since the number of shards changed have larger numbers.
ENTER = """
INSERT INTO feed_cursor
SELECT $1, shard, known.commit_no, known.committed_at
FROM (
        SELECT max(commit_no) AS commit_no, min(committed_at) AS committed_at FROM feed_cursor WHERE reader = $1
    ) AS known,
    LATERAL (
        SELECT shard FROM projector_checkpoint
        UNION SELECT shard FROM endpoint_change WHERE committed_at >= known.committed_at
    ) AS found
ON CONFLICT (reader, shard) DO NOTHING
"""
COMMITS = "SELECT shard, commits FROM projector_checkpoint"
# The rows of a commit become visible together, and no row of its shard appears later with a smaller commit_no.
# So the next thousand rows, up to the end of a commit, are complete.
# When the number of shards changes, new commits have larger numbers than those of all shards before:
# in the order of the numbers, the changes of an endpoint stay in order.
NEXT = """
WITH unread AS (
    SELECT endpoint_change.*
    FROM endpoint_change JOIN unnest($1::integer[], $2::bigint[], $3::bigint[]) AS log (shard, after, through)
        USING (shard)
    WHERE commit_no > log.after AND commit_no <= log.through AND committed_at >= $4
)
SELECT shard, commit_no, committed_at, endpoint_id, facet, verdict, position, occurred_at, event,
       after ->> 'connectivity_status' AS status
FROM unread
WHERE commit_no <= (
    SELECT max(commit_no) FROM (SELECT commit_no FROM unread ORDER BY commit_no LIMIT 1000) AS next
)
ORDER BY commit_no, shard, position, endpoint_id, facet
"""
WORK = "INSERT INTO connectivity_seen VALUES ($1, $2, $3, $4, $5, $6, $7)"
SEEN = ("shard", "commit_no", "position", "endpoint_id", "status", "event", "occurred_at")
MOVE = "UPDATE feed_cursor SET commit_no = $3, committed_at = $4 WHERE reader = $1 AND shard = $2"
LEAVE = "DELETE FROM feed_cursor WHERE reader = $1 AND shard <> ALL ($2::integer[])"
LOST = "SELECT endpoint_change_since() > $1"


async def read(connection: asyncpg.Connection, reader: str) -> int:
    """Do the work for the next commits of all shards, and return how many rows they had."""
    async with connection.transaction():
        cursors = {shard: place for shard, *place in await connection.fetch(CURSORS, reader)}
        commits = {row["shard"]: row["commits"] for row in await connection.fetch(COMMITS)}
        began = min(committed_at for _, committed_at in cursors.values())
        if commits.keys() - cursors.keys():
            await connection.execute(ENTER, reader)
            return await read(connection, reader)
        # A shard that is gone has no commits after those of the others.
        through = [commits.get(shard, max(commits.values(), default=0)) for shard in cursors]
        after = [commit_no for commit_no, _ in cursors.values()]
        rows = await connection.fetch(NEXT, list(cursors), after, through, began)
        await warn_of_gaps(connection, cursors, rows)
        for row in rows:
            if row["facet"] == "connectivity" and row["verdict"] in ("applied", "corrected"):
                await connection.execute(WORK, *(row[name] for name in SEEN))
            cursors[row["shard"]] = [row["commit_no"], row["committed_at"]]
        await connection.executemany(MOVE, [(reader, shard, *place) for shard, place in cursors.items()])
        if not rows:
            await connection.execute(LEAVE, reader, list(commits) or list(cursors))
    return len(rows)


async def warn_of_gaps(
    connection: asyncpg.Connection, cursors: dict[int, list[Any]], rows: list[asyncpg.Record]
) -> None:
    """Print a warning if changes are missing between a cursor and the rows of its shard, or between two of these."""
    for shard, (commit_no, committed_at) in cursors.items():
        numbers = [commit_no, *(row["commit_no"] for row in rows if row["shard"] == shard)]
        has_gap = any(after > before + 1 for before, after in pairwise(numbers))
        if has_gap and await connection.fetchval(LOST, committed_at):
            print(
                "changes were dropped or not recorded before they were read: keep them for longer (PROJECTOR_CHANGES)",
                flush=True,
            )
            return


async def follow(url: str, reader: str) -> None:
    """Read until the connection is lost."""
    connection = await asyncpg.connect(url)
    news = asyncio.Event()
    try:
        await connection.execute(SETUP)
        await connection.execute(BEGIN, reader)
        await connection.execute(ENTER, reader)
        await connection.add_listener("endpoint_change", lambda *_: news.set())
        connection.add_termination_listener(lambda _: news.set())
        print("reading", flush=True)
        while True:
            news.clear()
            while await read(connection, reader):
                pass
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await news.wait()
    finally:
        connection.terminate()


async def main(reader: str) -> None:
    """Read, and connect again after every outage."""
    while True:
        try:
            await follow(os.environ["PROJECTOR_DATABASE_URL"], reader)
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
            print(f"retrying: {error}", flush=True)
            await asyncio.sleep(AGAIN_S)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
