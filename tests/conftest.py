"""Real servers: one Postgres for all tests, with a database for each, and one NATS for each test."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import settings
from nats.aio.client import Client

from projector import resources
from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.connection import Broker
from projector.stream.provision import create_stream
from tests.support import servers
from tests.support.fixtures import Rows, Wire
from tests.support.nats_client import lasting_client
from tests.support.patience import PATIENCE_S, be_patient
from tests.support.versions import NATS_VERSION, POSTGRES_VERSION

settings.register_profile("tests", deadline=None)  # a slow machine must not fail a test
settings.load_profile("tests")


def pytest_configure() -> None:
    """Stop the servers, too, when the tests are terminated."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Keep the cores busy: a test spends a third of its time waiting for servers and processes."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return len(os.sched_getaffinity(0)) * 3 // 2


def pytest_report_header() -> str:
    postgres, nats = (".".join(map(str, version)) for version in (POSTGRES_VERSION, NATS_VERSION))
    return f"servers: Postgres {postgres}, NATS {nats}"


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """Raise the limits of the projector so that no busy machine exceeds them; tests of a limit set their own."""
    with pytest.MonkeyPatch.context() as patch:
        be_patient(patch)
        yield


@pytest.fixture
def server_folder() -> Iterator[Path]:
    with servers.server_folder() as folder:
        yield folder


@pytest.fixture
def nats_server(server_folder: Path) -> Iterator[EmbeddedNats]:
    """One server per test: it starts in 20 ms of processor time, and has no account or stream of another test."""
    with servers.nats_in(server_folder / "nats") as server:
        yield server


@pytest.fixture
def nats_url(nats_server: EmbeddedNats) -> str:
    return nats_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """For tests that leave it running; the others have `own_postgres` or `spare_postgres`."""
    with servers.server_folder() as folder, servers.postgres_in(folder) as server:
        yield server


@pytest.fixture
def own_postgres(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    with servers.postgres_in(server_folder / "postgres") as server:
        yield server


@pytest.fixture
async def database_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    async with servers.database(postgres_server) as url:
        yield url


@pytest.fixture
async def other_database_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """A second migrated database, to compare a result with."""
    async with servers.database(postgres_server) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    async with servers.database(postgres_server, template="template0") as url:
        yield url


STREAM = "KAA_ENDPOINT_EVENTS"


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec("kaa-2017-04", resources.folder("schemas"))


@pytest.fixture(scope="session")
def event(codec: Codec) -> Callable[..., Wire]:
    """Builds the message of an event type from its record; missing fields take valid defaults."""
    harmless = {"timestamp": 1_700_000_000_000, "previousAppVersionName": "", "removed": [], "added": [], "updated": []}

    def build(event_type: str, endpoint_id: str = "", *, originator: str = "kpc", **record: Any) -> Wire:
        payload = codec.encode(event_type, harmless | {"endpointId": endpoint_id} | record)
        return subjects.build(originator, event_type), payload

    return build


@pytest.fixture
async def nats_client(nats_url: str) -> AsyncIterator[Client]:
    """A client that survives restarts of the server."""
    async with lasting_client(nats_url) as client:
        yield client


@pytest.fixture
async def stream(nats_url: str) -> str:
    """The stream as `projector init` creates it."""
    await create_stream(Broker(urls=(nats_url,)), STREAM)
    return STREAM


@pytest.fixture
def publish(nats_client: Client) -> Callable[..., Awaitable[int]]:
    """Publishes messages in order, and returns the position of the last one when all are stored."""

    async def publish(*messages: Wire, headers: dict[str, str] | None = None) -> int:
        jetstream = nats_client.jetstream()
        stored = [await jetstream.publish_async(subject, payload, headers=headers) for subject, payload in messages]
        return max(acknowledgement.seq for acknowledgement in await asyncio.gather(*stored))

    return publish


@pytest.fixture(scope="session")
def query() -> Callable[..., Awaitable[Rows]]:
    """Runs a statement in a database."""

    async def query(url: str, sql: str, *arguments: Any) -> Rows:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *arguments)]
        finally:
            await connection.close()

    return query


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Awaitable[None]]:
    """Polls a condition until it holds."""

    async def eventually(condition: Callable[[], Awaitable[object]], *, patience_s: float = PATIENCE_S) -> None:
        async with asyncio.timeout(patience_s):
            while not await condition():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.01)

    return eventually
