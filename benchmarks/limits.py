"""What each part could do if it were alone: `python -m benchmarks.limits pull|decode|write`.

Garbage is collected as seldom as in the daemon: a limit that something else holds back is not one.
"""

import sys
from collections.abc import AsyncIterator, Sequence
from time import perf_counter

from benchmarks.program import Task, run, say
from projector import resources
from projector.app.projection import Projection
from projector.cli.garbage_collection import collect_garbage_less_often
from projector.composition import DELIVERED_AT_ONCE
from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import fold
from projector.domain.messages import Delivery, Message
from projector.domain.rules import Rules
from projector.settings import SETTINGS
from projector.storage.store import Store
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.connection import Broker, connected
from projector.stream.consumers import DurableConsumer

_REVISION = "kaa-2017-04"
_LINGER_S = SETTINGS["linger_ms"].default / 1000
_BATCH_SIZE = DELIVERED_AT_ONCE


async def pull(task: Task) -> None:
    """Receive and acknowledge the messages, and throw them away."""
    async for _ in _deliveries(task):
        pass


async def decode(task: Task) -> None:
    """Receive, decode and acknowledge the messages, and throw the events away."""
    projection = _projection(task)
    async for delivery in _deliveries(task):
        await projection.decode(delivery.messages)


async def write(task: Task) -> None:
    """Load and save what the messages change; they are received, decoded and folded off the clock."""
    messages: list[Message] = []
    async for delivery in _deliveries(task, announce=False):
        messages += delivery.messages
    projection = _projection(task)
    batches = [await projection.decode(part) for part in _parts(messages)]
    collect_garbage_less_often()  # so that what lies ready is not traversed again and again
    store = Store(task.database_url)
    await store.open()
    load_s = save_s = commit_s = 0.0
    say("active")
    for batch in batches:
        async with store.transaction() as work:
            began = perf_counter()
            endpoints = await work.load(batch.needed)
            load_s += perf_counter() - began
            fold(batch.events, endpoints)
            began = perf_counter()
            await work.save(endpoints)
            saved = perf_counter()
        save_s += saved - began
        commit_s += perf_counter() - saved
    say("caught up", load_s=load_s, save_s=save_s, commit_s=commit_s)
    await store.close()


async def _deliveries(task: Task, *, announce: bool = True) -> AsyncIterator[Delivery]:
    async with connected(Broker(urls=(task.nats_url,)), name="benchmark") as client:
        consumer = DurableConsumer(client, task.stream, task.consumer, subjects.filters(), batch_size=_BATCH_SIZE)
        await consumer.seek(task.after)
        if announce:
            say("active")
        left = task.messages
        while left > 0:
            delivery = await consumer.next(_LINGER_S)
            if delivery is None:
                continue
            yield delivery
            await consumer.acknowledge(delivery)
            left -= len(delivery.messages)
        if announce:
            say("caught up")


def _projection(task: Task) -> Projection:
    """Return a projection that can decode, and has nowhere to write to."""
    rules = Rules(version=1, revision=_REVISION, originators=())
    checkpoint = Checkpoint(stream=task.stream, stream_created_at=0, rules=rules)
    return Projection(Codec(_REVISION, resources.folder("schemas")), Store(task.database_url), checkpoint)


def _parts(messages: Sequence[Message]) -> list[Sequence[Message]]:
    return [messages[start : start + _BATCH_SIZE] for start in range(0, len(messages), _BATCH_SIZE)]


if __name__ == "__main__":
    collect_garbage_less_often()
    run({"pull": pull, "decode": decode, "write": write}[sys.argv[1]])
