"""The tables are those of a plain fold for any batch size and any cache size of a rebuild."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from time import time

import pytest

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
MESSAGES = 1_200
REVISIONS = {11: "kaa-2017-04", 12: "kaa-2020-05"}
"""By seed."""

each_seed = pytest.mark.parametrize("seed", REVISIONS)


@asynccontextmanager
async def published(world: World, seed: int) -> AsyncIterator[tuple[str, Tables]]:
    """A stream of messages of every kind, and what a plain fold makes of them."""
    stream = f"batches_{secrets.token_hex(4)}"
    codec = Codec(REVISIONS[seed], resources.folder("schemas"))
    traffic = Traffic(Random(seed), codec, now_ms=int(time() * 1000))  # noqa: S311 - it has to be repeatable
    messages = []
    async with world.client() as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(name=stream, subjects=list(subjects.filters()))
        try:
            for subject, payload in traffic.take(MESSAGES):
                await jetstream.publish(subject, payload)
            for position in range(1, MESSAGES + 1):
                raw = await jetstream.get_msg(stream, position)
                stored_at = int(raw.time.timestamp() * 1000) if raw.time else 0
                messages.append(Message(position, stored_at, raw.subject or "", raw.data or b""))
            yield stream, plain_fold(codec, messages, {})
        finally:
            await jetstream.delete_stream(stream)


def projector(world: World, seed: int, database: str, stream: str, batch_size: int) -> Projector:
    return Projector(
        load(
            {
                "http": "off",
                "revision": REVISIONS[seed],
                "nats_url": world.nats.url,
                "database_url": world.postgres.url_of(database),
                "stream": stream,
                "consumer": secrets.token_hex(4),
                "batch_size": batch_size,
            },
            config=None,
            fallback=None,
        )
    )


@each_seed
async def test_batch_size_does_not_change_the_tables(world: World, seed: int) -> None:
    async with published(world, seed) as (stream, expected):
        assert expected.rows
        assert expected.dead_letters
        for batch_size in BATCH_SIZES:
            async with world.database() as database:
                await projector(world, seed, database, stream, batch_size).run(until_caught_up=True)
                assert differences(expected, await stored(world.postgres.url_of(database), stream)) == [], batch_size


@each_seed
@pytest.mark.parametrize("held", [0, 50, 1_000_000])
async def test_cache_size_of_a_rebuild_does_not_change_the_tables(
    world: World, seed: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "_REGISTERS_HELD", held)
    async with published(world, seed) as (stream, expected), world.database() as database:
        url = world.postgres.url_of(database)
        report = await projector(world, seed, database, stream, 100).rebuild()
        assert report.replayed == expected.messages
        assert differences(expected, await stored(url, stream)) == []
        assert (await projector(world, seed, database, stream, 1_000).verify()).clean
