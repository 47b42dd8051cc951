"""A FastStream pull subscriber, and one SQLAlchemy Core upsert and commit per event.

FastStream handles the messages of one fetch concurrently, as many at a time as the connection pool allows.
"""

import logging
from functools import cache
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from sqlalchemy import ARRAY, Table, Text, bindparam, case, cast, func, or_
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.peers.messages import SUBJECT, consumer, read
from benchmarks.peers.model import Endpoint, engine_url
from benchmarks.peers.rows import GUARDS, columns_of
from benchmarks.program import Task, run, say

_FETCHED_AT_ONCE = 100
_TABLE: Table = Endpoint.__table__  # type: ignore[assignment]  # declared for joins, too


async def work(task: Task) -> None:
    """Follow the stream."""
    engine = create_async_engine(engine_url(task.database_url))
    broker = NatsBroker(task.nats_url, logger=None)
    app = FastStream(broker, logger=None)
    left = task.messages

    @broker.subscriber(
        SUBJECT,
        stream=JStream(task.stream, declare=False),
        durable=task.consumer,
        config=consumer(task),
        pull_sub=PullSub(batch_size=_FETCHED_AT_ONCE),
        ack_policy=AckPolicy.MANUAL,
    )
    async def handle(_: bytes, message: NatsMessage) -> None:
        nonlocal left
        event = read(message.raw_message)
        row = columns_of(event)
        removed = {"removed": event.record["removed"]} if event.type == "metadata.updated" else {}
        statement = _upsert(event.type, tuple(row))
        async with engine.begin() as connection:
            for endpoint_id in event.endpoint_ids:
                await connection.execute(statement, {"endpoint_id": endpoint_id, **row, **removed})
        await message.ack()
        left -= 1
        if left == 0:
            say("caught up")
            app.exit()

    @app.after_startup
    async def announce() -> None:
        say("active")

    await app.run(log_level=logging.WARNING)
    await engine.dispose()


@cache
def _upsert(event_type: str, columns: tuple[str, ...]) -> Insert:
    """Return the statement for events of a type; parameters are its columns, `endpoint_id` and `removed`."""
    table = _TABLE.c
    statement = insert(_TABLE).values({name: bindparam(name) for name in ("endpoint_id", *columns)})
    new = statement.excluded
    changes: dict[str, Any] = {name: new[name] for name in columns}
    changes["last_event_seq"] = func.greatest(table.last_event_seq, new.last_event_seq)
    changes["last_event_at"] = func.greatest(table.last_event_at, new.last_event_at)
    if event_type == "metadata.updated":
        removed = cast(bindparam("removed"), ARRAY(Text))
        changes["metadata"] = table.metadata.op("-")(removed).op("||")(new.metadata)
    if event_type == "connectivity.connected":
        changes["app_version"] = func.coalesce(new.app_version, table.app_version)
    if event_type.startswith("config."):
        announced = event_type == "config.new-available"
        available = new.config_available_id if announced else table.config_available_id
        applied = table.config_applied_id if announced else new.config_applied_id
        changes["config_pending_id"] = func.nullif(available, applied)
        changes["config_status"] = case((func.nullif(available, applied).is_(None), "applied"), else_="pending")
    guard = GUARDS[event_type]
    return statement.on_conflict_do_update(
        index_elements=[table.endpoint_id], set_=changes, where=or_(table[guard].is_(None), table[guard] <= new[guard])
    )


if __name__ == "__main__":
    run(work)
