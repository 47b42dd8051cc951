import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo

from projector.domain.messages import Delivery, Message
from projector.embedded import EmbeddedNats
from projector.errors import BrokerUnavailableError, DeliveryInterruptedError, StreamMissingError
from projector.stream import source as source_module
from projector.stream import subjects
from projector.stream.connection import Broker
from projector.stream.source import JetStreamSource

CONSUMER = "test"
PATIENCE_S = 10

Publish = Callable[..., Awaitable[int]]
OpenSource = Callable[..., Awaitable[JetStreamSource]]

pytestmark = pytest.mark.usefixtures("stream")


@pytest.fixture
def jetstream(nats_client: Client) -> JetStreamContext:
    return nats_client.jetstream()


@pytest.fixture
async def open_source(nats_url: str) -> AsyncIterator[OpenSource]:
    opened = []

    async def open_source(*originators: str, batch_size: int = 100, stream: str = "KAA_ENDPOINT_EVENTS") -> JetStreamSource:
        source = JetStreamSource(
            Broker(urls=(nats_url,)),
            stream=stream,
            consumer=CONSUMER,
            filters=subjects.filters(originators),
            batch_size=batch_size,
        )
        opened.append(source)
        await source.open()
        return source

    yield open_source
    for source in opened:
        await source.close()


@pytest.fixture
async def raw_publish(nats_url: str) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """Speaks the protocol itself, to say what no client library would."""
    where = urlsplit(nats_url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')

    async def raw_publish(line: bytes) -> None:
        writer.write(line + b"PING\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readuntil(b"PONG\r\n")).count(b"-ERR") == 0

    yield raw_publish
    writer.close()
    await writer.wait_closed()
