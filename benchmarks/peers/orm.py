"""nats-py `fetch`, and one SQLAlchemy ORM transaction per event: select the row, change it, commit, acknowledge."""

import nats
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.peers.messages import SUBJECT, Received, consumer, read
from benchmarks.peers.model import Endpoint, engine_url
from benchmarks.peers.rows import GUARDS, columns_of
from benchmarks.program import Task, run, say

_FETCHED_AT_ONCE = 100


async def work(task: Task) -> None:
    """Follow the stream."""
    engine = create_async_engine(engine_url(task.database_url))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    client = await nats.connect(task.nats_url)
    subscription = await client.jetstream().pull_subscribe(
        SUBJECT, durable=task.consumer, stream=task.stream, config=consumer(task)
    )
    say("active")
    left = task.messages
    while left > 0:
        for message in await subscription.fetch(min(left, _FETCHED_AT_ONCE)):
            async with sessions.begin() as session:
                await _store(session, read(message))
            await message.ack()
            left -= 1
    await client.flush()
    say("caught up")
    await client.close()
    await engine.dispose()


async def _store(session: AsyncSession, event: Received) -> None:
    for endpoint_id in event.endpoint_ids:
        endpoint = await session.get(Endpoint, endpoint_id)
        if endpoint is None:
            endpoint = Endpoint(endpoint_id=endpoint_id, metadata_={}, last_event_seq=0, last_event_at=event.at)
            session.add(endpoint)
        _apply(endpoint, event)


def _apply(endpoint: Endpoint, event: Received) -> None:
    changes = columns_of(event)
    latest = changes.pop("last_event_seq"), changes.pop("last_event_at")
    if endpoint.last_event_seq < event.seq:
        endpoint.last_event_seq, endpoint.last_event_at = latest
    changed_at = getattr(endpoint, GUARDS[event.type])
    if changed_at is not None and changed_at > event.at:
        return
    if event.type == "metadata.updated":
        removed = set(event.record["removed"])
        kept = {key: value for key, value in endpoint.metadata_.items() if key not in removed}
        changes["metadata_"] = kept | changes.pop("metadata")
    for name, value in changes.items():
        setattr(endpoint, name, value)
    if event.type.startswith("config."):
        pending = endpoint.config_available_id not in (None, endpoint.config_applied_id)
        endpoint.config_status = "pending" if pending else "applied"
        endpoint.config_pending_id = endpoint.config_available_id if pending else None


if __name__ == "__main__":
    run(work)
