"""Follow the changes of the table in SQL: each change once, in order, also over crashes.

    export PROJECTOR_DATABASE_URL=postgresql://…
    python examples/feed.py alerts

The work of this reader is to write every connect and disconnect into a table of its own, `connectivity_seen`.
The cursor moves in the transaction that does the work, so a crash at any point repeats nothing and skips nothing.
"""

import asyncio
import os
import sys
from contextlib import suppress
from itertools import pairwise

import asyncpg

POLL_S = 5.0
"""Notifications are a hint: one can be lost with the connection."""
AGAIN_S = 1.0

SETUP = """
CREATE TABLE IF NOT EXISTS feed_cursor (reader text PRIMARY KEY, commit_no bigint NOT NULL, committed_at timestamptz);
CREATE TABLE IF NOT EXISTS connectivity_seen (
    commit_no bigint, position bigint, endpoint_id text, status text, event text, occurred_at timestamptz
);
"""
BEGIN = """
INSERT INTO feed_cursor
SELECT $1, coalesce(max(commits), 0), coalesce(max(advanced_at), now()) FROM projector_checkpoint WHERE shard = 0
ON CONFLICT (reader) DO NOTHING
"""
CURSOR = "SELECT commit_no, committed_at FROM feed_cursor WHERE reader = $1 FOR UPDATE"
# The rows of a commit become visible together, and no row appears later with a smaller commit_no.
# So the next thousand rows, up to the end of a commit, are complete.
NEXT = """
SELECT commit_no, committed_at, endpoint_id, facet, verdict, position, occurred_at, event,
       after ->> 'connectivity_status' AS status
FROM endpoint_change
WHERE shard = 0 AND commit_no > $1 AND committed_at >= $2
  AND commit_no <= (
      SELECT max(commit_no) FROM (
          SELECT commit_no FROM endpoint_change WHERE shard = 0 AND commit_no > $1 AND committed_at >= $2
          ORDER BY commit_no LIMIT 1000
      ) AS next
  )
ORDER BY commit_no, position, endpoint_id, facet
"""
WORK = "INSERT INTO connectivity_seen VALUES ($1, $2, $3, $4, $5, $6)"
SEEN = ("commit_no", "position", "endpoint_id", "status", "event", "occurred_at")
MOVE = "UPDATE feed_cursor SET commit_no = $2, committed_at = $3 WHERE reader = $1"
LOST = "SELECT endpoint_change_since() > $1"


async def read(connection: asyncpg.Connection, reader: str) -> int:
    """Do the work for the next commits, and return how many rows they had."""
    async with connection.transaction():
        ((commit_no, committed_at),) = await connection.fetch(CURSOR, reader)
        rows = await connection.fetch(NEXT, commit_no, committed_at)
        numbers = [commit_no, *(row["commit_no"] for row in rows)]
        has_gap = any(after > before + 1 for before, after in pairwise(numbers))
        if has_gap and await connection.fetchval(LOST, committed_at):
            print(
                "changes were dropped or not recorded before they were read: keep them for longer (PROJECTOR_CHANGES)",
                flush=True,
            )
        for row in rows:
            if row["facet"] == "connectivity" and row["verdict"] in ("applied", "corrected"):
                await connection.execute(WORK, *(row[name] for name in SEEN))
        if rows:
            await connection.execute(MOVE, reader, rows[-1]["commit_no"], rows[-1]["committed_at"])
    return len(rows)


async def follow(url: str, reader: str) -> None:
    """Read until the connection is lost."""
    connection = await asyncpg.connect(url)
    news = asyncio.Event()
    try:
        await connection.execute(SETUP)
        await connection.execute(BEGIN, reader)
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
