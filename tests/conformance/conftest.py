"""Every implementation of the ports, one after the other."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
from nats.aio.client import Client

from projector.dev.embedded import EmbeddedNats
from projector.storage import feed as feed_module
from projector.storage import store as store_module
from projector.stream import pull as pull_module
from tests.conformance import streams
from tests.conformance.databases import DatabaseUnderTest, MemoryDatabaseUnderTest, PostgresDatabase
from tests.conformance.feeds import FeedUnderTest, MemoryFeedUnderTest, RealFeed
from tests.conformance.streams import NatsStream, StreamUnderTest
from tests.support.fixtures import Publish, Query
from tests.support.memory.stream import MemoryStream

real = partial(pytest.param, marks=pytest.mark.servers)


@pytest.fixture(params=["memory", real("durable"), real("replay")])
def implementation(request: pytest.FixtureRequest) -> StreamUnderTest:
    if request.param == "memory":
        return MemoryStream(streams.NAME, originators=(streams.ORIGINATOR,))
    request.getfixturevalue("monkeypatch").setattr(pull_module, "_IDLE_S", 0.05)
    server: EmbeddedNats = request.getfixturevalue("nats_server")
    client: Client = request.getfixturevalue("nats_client")
    publish: Publish = request.getfixturevalue("publish")
    return NatsStream(server, client, publish, durable=request.param == "durable")


@pytest.fixture
async def stream(implementation: StreamUnderTest) -> StreamUnderTest:
    """An empty stream."""
    if isinstance(implementation, NatsStream):
        await implementation.create()
    return implementation


@pytest.fixture(params=["memory", real("servers")])
def database_implementation(request: pytest.FixtureRequest) -> DatabaseUnderTest:
    if request.param == "memory":
        return MemoryDatabaseUnderTest()
    request.getfixturevalue("monkeypatch").setattr(store_module, "_PING_EVERY_S", 0.05)
    url: str = request.getfixturevalue("database_url")
    query: Query = request.getfixturevalue("query")
    return PostgresDatabase(url, query)


@pytest.fixture
async def database(database_implementation: DatabaseUnderTest) -> AsyncIterator[DatabaseUnderTest]:
    """A database in which nothing was folded yet."""
    yield database_implementation
    await database_implementation.close()


@pytest.fixture(params=["memory", real("servers")])
def feed_implementation(request: pytest.FixtureRequest) -> FeedUnderTest:
    if request.param == "memory":
        return MemoryFeedUnderTest()
    request.getfixturevalue("monkeypatch").setattr(feed_module, "_PAGE", 3)
    client: Client = request.getfixturevalue("nats_client")
    return RealFeed(request.getfixturevalue("database_url"), request.getfixturevalue("nats_url"), client.jetstream())


@pytest.fixture
async def feed(feed_implementation: FeedUnderTest) -> FeedUnderTest:
    """A log without changes, a cursor at its beginning, and a stream without messages."""
    if isinstance(feed_implementation, RealFeed):
        await feed_implementation.create()
    return feed_implementation
