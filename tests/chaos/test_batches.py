"""The tables are those of a plain fold for any batch size and any cache size of a rebuild."""

import secrets
from collections.abc import AsyncIterator
from random import Random
from time import time
from typing import NamedTuple

import pytest
import pytest_asyncio

from projector import resources
from projector.app import rebuild
from projector.domain.messages import Message
from projector.runtime import Projector
from projector.settings import load
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.chaos.reference import Tables, differences, plain_fold, stored
from tests.chaos.traffic import Traffic
from tests.chaos.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

BATCH_SIZES = (1, 7, 1_000, 20_000)
MESSAGES = 400
REVISIONS = {11: "kaa-2017-04", 12: "kaa-2020-05"}
"""By seed."""


class Published(NamedTuple):
    """A stream of messages of every kind, and what a plain fold makes of them."""

    revision: str
    stream: str
    expected: Tables


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=REVISIONS)
async def published(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Published]:
    seed: int = request.param
    revision = REVISIONS[seed]
    stream = f"batches_{revision}"
    codec = Codec(revision, resources.folder("schemas"))
    traffic = Traffic(Random(seed), codec, now_ms=int(time() * 1000))  # noqa: S311 - it has to be repeatable
    messages = []
    async with world.client() as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(name=stream, subjects=list(subjects.filters()))
        for subject, payload in traffic.take(MESSAGES):
            await jetstream.publish(subject, payload)
        for position in range(1, MESSAGES + 1):
            raw = await jetstream.get_msg(stream, position)
            stored_at = int(raw.time.timestamp() * 1000) if raw.time else 0
            messages.append(Message(position, stored_at, raw.subject or "", raw.data or b""))
        yield Published(revision, stream, plain_fold(codec, messages, {}))
        await jetstream.delete_stream(stream)


def projector(world: World, published: Published, database: str, batch_size: int) -> Projector:
    return Projector(
        load(
            {
                "http": "off",
                "revision": published.revision,
                "nats_url": world.nats.url,
                "database_url": world.postgres.url_of(database),
                "stream": published.stream,
                "consumer": secrets.token_hex(4),
                "batch_size": batch_size,
            },
            config=None,
            fallback=None,
        )
    )


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
async def test_batch_size_does_not_change_the_tables(world: World, published: Published, batch_size: int) -> None:
    assert published.expected.rows
    assert published.expected.dead_letters
    async with world.database() as database:
        await projector(world, published, database, batch_size).run(until_caught_up=True)
        assert differences(published.expected, await stored(world.postgres.url_of(database), published.stream)) == []


@pytest.mark.parametrize("held", [0, 50, 1_000_000])
async def test_cache_size_of_a_rebuild_does_not_change_the_tables(
    world: World, published: Published, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "_REGISTERS_HELD", held)
    async with world.database() as database:
        url = world.postgres.url_of(database)
        report = await projector(world, published, database, 100).rebuild()
        assert report.replayed == published.expected.messages
        assert differences(published.expected, await stored(url, published.stream)) == []
        assert (await projector(world, published, database, 1_000).verify()).clean
