"""Streams under test: the one in memory, and one of NATS with either consumer."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import nats.js.errors
from nats.aio.client import Client
from nats.js.api import StreamConfig

from projector.app.ports import Consumer, Source
from projector.dev.embedded import EmbeddedNats
from projector.stream import subjects
from projector.stream.connection import Broker, connected
from projector.stream.consumers import DurableConsumer, ReplayConsumer
from projector.stream.view import StreamView
from tests.support.fixtures import Publish, Wire

NAME = "CONFORMANCE"
ORIGINATOR = "kpc"
"""Whose messages are wanted; those of others leave holes."""
_CONSUMER = "conformance"


class StreamUnderTest(Protocol):
    """A stream, and the actions of publishers and operators; see `MemoryStream`."""

    async def publish(self, *wires: Wire, headers: dict[str, str] | None = None) -> int: ...

    async def trim(self, first: int) -> None: ...

    async def delete(self, *positions: int) -> None: ...

    async def recreate(self) -> None: ...

    async def remove(self) -> None: ...

    async def interrupt(self) -> None: ...

    async def lose_connections(self) -> None: ...

    async def acknowledged(self) -> int: ...

    def open(self, *, batch_size: int = ...) -> AbstractAsyncContextManager[Source]: ...


class NatsStream:
    """A stream of a NATS server."""

    def __init__(self, server: EmbeddedNats, client: Client, publish: Publish, *, durable: bool) -> None:
        self._server = server
        self._jetstream = client.jetstream()
        self._durable = durable
        self.publish = publish

    async def create(self) -> None:
        await self._jetstream.add_stream(StreamConfig(name=NAME, subjects=list(subjects.filters())))

    async def trim(self, first: int) -> None:
        await self._jetstream.purge_stream(NAME, seq=first)

    async def delete(self, *positions: int) -> None:
        for position in positions:
            await self._jetstream.delete_msg(NAME, position)

    async def remove(self) -> None:
        await self._jetstream.delete_stream(NAME)

    async def recreate(self) -> None:
        await self.remove()
        await self.create()

    async def interrupt(self) -> None:
        for info in await self._jetstream.consumers_info(NAME):
            await self._jetstream.delete_consumer(NAME, info.name)

    async def lose_connections(self) -> None:
        self._server.stop()

    async def acknowledged(self) -> int:
        try:
            floor = (await self._jetstream.consumer_info(NAME, _CONSUMER)).ack_floor
        except nats.js.errors.NotFoundError:
            return 0
        return 0 if floor is None else floor.stream_seq

    @asynccontextmanager
    async def open(self, *, batch_size: int = 100) -> AsyncIterator[Source]:
        filters = subjects.filters((ORIGINATOR,))
        async with connected(Broker(urls=(self._server.url,)), name="conformance") as client:
            consumer: Consumer = (
                DurableConsumer(client, NAME, _CONSUMER, filters, batch_size=batch_size)
                if self._durable
                else ReplayConsumer(client, NAME, filters, batch_size=batch_size)
            )
            yield Source(view=StreamView(client, NAME, filters), consumer=consumer)
