"""nats-py `fetch`, and one asyncpg transaction per batch: guarded upserts by `executemany`, then acknowledgements."""

import json
from collections import defaultdict
from functools import cache
from typing import Any

import asyncpg
import nats

from benchmarks.peers.messages import SUBJECT, consumer, read
from benchmarks.peers.rows import GUARDS, columns_of
from benchmarks.program import Task, run, say

_FETCHED_AT_ONCE = 500

_SPECIAL = {
    "connectivity.connected": {"app_version": "coalesce(excluded.app_version, state.app_version)"},
    "metadata.updated": {"metadata": "(state.metadata - $6::text[]) || excluded.metadata"},
    "config.new-available": {
        "config_pending_id": "nullif(excluded.config_available_id, state.config_applied_id)",
        "config_status": "CASE WHEN excluded.config_available_id = state.config_applied_id "
        "THEN 'applied' ELSE 'pending' END",
    },
    "config.updated": {
        "config_pending_id": "nullif(state.config_available_id, excluded.config_applied_id)",
        "config_status": "CASE WHEN state.config_available_id <> excluded.config_applied_id "
        "THEN 'pending' ELSE 'applied' END",
    },
}
_ALWAYS = {
    "last_event_seq": "greatest(state.last_event_seq, excluded.last_event_seq)",
    "last_event_at": "greatest(state.last_event_at, excluded.last_event_at)",
}


async def work(task: Task) -> None:
    """Follow the stream."""
    connection: Any = await asyncpg.connect(task.database_url)
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    client = await nats.connect(task.nats_url)
    subscription = await client.jetstream().pull_subscribe(
        SUBJECT, durable=task.consumer, stream=task.stream, config=consumer(task)
    )
    say("active")
    left = task.messages
    while left > 0:
        messages = await subscription.fetch(min(left, _FETCHED_AT_ONCE))
        upserts: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for message in messages:
            event = read(message)
            row = columns_of(event)
            removed = (event.record["removed"],) if event.type == "metadata.updated" else ()
            rows = upserts[_upsert(event.type, tuple(row))]
            rows += [(endpoint_id, *row.values(), *removed) for endpoint_id in event.endpoint_ids]
        async with connection.transaction():
            for statement, rows in upserts.items():
                await connection.executemany(statement, rows)
        for message in messages:
            await message.ack()
        left -= len(messages)
    await client.flush()
    say("caught up")
    await client.close()
    await connection.close()


@cache
def _upsert(event_type: str, columns: tuple[str, ...]) -> str:
    """Return the statement for events of a type; parameters are endpoint id, columns, and removed metadata keys."""
    names = ("endpoint_id", *columns)
    changes = {name: f"excluded.{name}" for name in columns} | _SPECIAL.get(event_type, {}) | _ALWAYS
    guard = GUARDS[event_type]
    return f"""
INSERT INTO endpoint_state AS state ({", ".join(names)})
VALUES ({", ".join(f"${number}" for number in range(1, len(names) + 1))})
ON CONFLICT (endpoint_id) DO UPDATE SET {", ".join(f"{name} = {value}" for name, value in changes.items())}
WHERE state.{guard} IS NULL OR state.{guard} <= excluded.{guard}
"""


if __name__ == "__main__":
    run(work)
