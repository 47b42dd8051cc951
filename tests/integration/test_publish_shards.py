"""The changes of several shards are published: each once, those of an endpoint in order."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from projector.app import publish as publish_module
from projector.domain.messages import Selection
from projector.domain.shards import shard_of
from projector.errors import FeedMovedError, FeedStreamMissingError, SettingError
from projector.runtime import Projector
from projector.storage import feed as feed_module
from tests.support.fixtures import Event, Eventually, Wire
from tests.support.memory.life import life
from tests.support.published import NAME, ON, PREFIX, published, stored
from tests.support.scene import Scene

SHARDS = 3


@pytest.fixture
async def jetstream(nats_client: Client) -> JetStreamContext:
    return nats_client.jetstream()


@pytest.fixture
async def divided(scene: Scene, jetstream: JetStreamContext) -> None:
    """Three shards, and a stream that does not recognize repeats after a while."""
    await jetstream.add_stream(StreamConfig(name=NAME, subjects=[f"{PREFIX}.>"], duplicate_window=0.1))
    await divide(scene, SHARDS)


pytestmark = pytest.mark.usefixtures("divided")


async def divide(scene: Scene, shards: int, **settings: Any) -> None:
    await scene.nobody_leads()
    await Projector(scene.settings(**{**ON, **settings})).init(shards=shards)


def some_life(event: Event, seed: int, count: int = 300) -> list[Wire]:
    return life(event, Random(seed), count, endpoints=40)  # noqa: S311 - not a secret


Key = tuple[Any, ...]


async def logged(scene: Scene) -> dict[int, list[Key]]:
    """The changes to publish of each shard, in order."""
    rows = await scene.query(
        "SELECT shard, commit_no, position, endpoint_id, facet FROM endpoint_change "
        "WHERE verdict IN ('applied', 'corrected') "
        'ORDER BY commit_no, coalesce(position, 0), endpoint_id COLLATE "C", facet COLLATE "C"',
    )
    return by_shard([tuple(row) for row in rows])


def by_shard(keys: Sequence[Key]) -> dict[int, list[Key]]:
    return {shard: [key for key in keys if key[0] == shard] for shard in sorted({key[0] for key in keys})}


async def in_stream(jetstream: JetStreamContext) -> dict[int, list[Key]]:
    names = ("shard", "commit_no", "position", "endpoint_id", "facet")
    return by_shard([tuple(one[name] for name in names) for one in await published(jetstream)])


@pytest.fixture
def all_published(scene: Scene, jetstream: JetStreamContext, eventually: Eventually) -> Any:
    """Waits until every shard is folded and published up to a position, and compares the stream with the logs."""

    async def all_published(position: int) -> None:
        async def complete() -> bool:
            behind = await scene.query("SELECT FROM projector_checkpoint WHERE position < $1", position)
            messages = (await jetstream.stream_info(NAME)).state.last_seq
            return not behind and messages >= sum(map(len, (await logged(scene)).values()))

        await eventually(complete)
        assert await in_stream(jetstream) == await logged(scene)

    return all_published


async def test_each_change_of_each_shard_is_published_once_and_in_order(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    """`run --until-caught-up` publishes what every shard has folded, whichever ends last."""
    for seed in range(3):
        await scene.publish(*some_life(event, seed))
        recorder = await scene.fold(**ON)
        found = await in_stream(jetstream)
        assert found == await logged(scene)
        assert [*found] == [0, 1, 2]
        assert recorder.published > 0
    status = await Projector(scene.settings(**ON)).status()
    assert status.publish is not None
    assert (status.publish["stream"], status.publish["lag_commits"], status.publish["lag_seconds"]) == (NAME, 0, 0.0)
    assert len(await scene.query("SELECT FROM projector_feed WHERE error IS NULL AND endpoint_id IS NULL")) == SHARDS


async def test_of_two_workers_one_publishes_and_the_other_takes_over(
    scene: Scene, event: Event, all_published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "_SAVE_EVERY_S", 600.0)
    first = scene.follow(batch_size=20, **ON)
    await first.hears("active", SHARDS)
    for seed in range(3):
        second = scene.follow(batch_size=20, **ON)
        await second.hears("active")
        await all_published(await scene.publish(*some_life(event, seed)))
        last = await scene.publish(*some_life(event, seed + 10, 100))
        await first.abandon()
        await second.hears("active", SHARDS)
        await all_published(last)
        first = second
    await first.stop()


async def test_crashes_before_the_cursors_are_written_double_and_lose_nothing(
    scene: Scene, event: Event, all_published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "_SAVE_EVERY_S", 600.0)
    for seed in range(4):
        daemon = scene.follow(batch_size=20, **ON)
        await daemon.hears("active", SHARDS)
        await all_published(await scene.publish(*some_life(event, seed)))
        await daemon.abandon()
    ((written,),) = await scene.query("SELECT max(stream_seq) FROM projector_feed")
    assert written < sum(map(len, (await logged(scene)).values()))


async def test_a_stream_that_lost_its_tail_gets_the_changes_of_every_shard_again(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    await scene.publish(*some_life(event, 1))
    await scene.fold(batch_size=30, **ON)
    kept = (await stored(jetstream))[:-70]
    await jetstream.delete_stream(NAME)
    await jetstream.add_stream(StreamConfig(name=NAME, subjects=[f"{PREFIX}.>"]))
    for message in kept:
        await jetstream.publish(message.subject or "", message.data or b"")
    await scene.fold(**ON)
    assert await in_stream(jetstream) == await logged(scene)


async def test_large_commits_of_several_shards_are_published_page_by_page(
    scene: Scene, jetstream: JetStreamContext, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_PAGE", 7)
    many = event("connectivity.disconnected", endpointIds=[f"e{number}" for number in range(90)])
    await scene.publish(many, *some_life(event, 1, 60), many)
    await scene.fold(batch_size=40, **ON)
    assert await in_stream(jetstream) == await logged(scene)


async def test_corrections_of_a_rebuild_and_of_a_retry_are_published(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    names = [f"e{number}" for number in range(9)]
    await scene.query("ALTER TABLE endpoint_state ADD CONSTRAINT refused CHECK (endpoint_id <> 'e1')")
    await scene.publish(*some_life(event, 3, 100), event("connectivity.disconnected", "e1", endpointIds=names))
    await scene.fold(**ON)
    await scene.query("ALTER TABLE endpoint_state DROP CONSTRAINT refused")
    assert [one async for one in Projector(scene.settings(**ON)).retry_dead_letters(Selection())]
    await scene.query("UPDATE endpoint_state SET app_version = 'wrong'")
    await Projector(scene.settings(**ON)).rebuild()
    await scene.fold(**ON)
    found = await in_stream(jetstream)
    assert found == await logged(scene)
    corrected = [one for one in await published(jetstream) if one["verdict"] == "corrected"]
    assert {one["shard"] for one in corrected} == {0, 1, 2}


# Another number of shards.


@pytest.mark.parametrize("shards", [1, 2, 5])
async def test_unpublished_changes_are_published_before_the_endpoints_change_shards(
    scene: Scene, jetstream: JetStreamContext, event: Event, shards: int
) -> None:
    await scene.publish(*some_life(event, 1))
    await scene.fold(**ON)
    await scene.publish(*some_life(event, 2))
    await scene.fold(changes="7d")
    before = await logged(scene)
    assert await in_stream(jetstream) != before
    await divide(scene, shards)
    assert await in_stream(jetstream) == before
    assert await scene.query("SELECT shard, endpoint_id, error FROM projector_feed ORDER BY shard") == [
        (number, None, None) for number in range(shards)
    ]
    for seed in (3, 4):
        await scene.publish(*some_life(event, seed))
        await scene.fold(**ON)
        assert await in_stream(jetstream) == await logged(scene)
    positions: dict[tuple[str, str], int] = {}
    for one in await published(jetstream):
        key = (one["endpoint_id"], one["facet"])
        assert one["position"] > positions.get(key, 0)
        positions[key] = one["position"]


async def test_a_projection_with_one_shard_is_divided_and_goes_on_publishing(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    await divide(scene, 1)
    await scene.publish(*some_life(event, 1))
    await scene.fold(**ON)
    await scene.query("UPDATE projector_feed SET lost_commits = 4, lost_at = now()")
    await divide(scene, 3)
    await scene.publish(*some_life(event, 2))
    await scene.fold(**ON)
    assert await in_stream(jetstream) == await logged(scene)
    assert await scene.query("SELECT sum(lost_commits), count(lost_at) FROM projector_feed") == [(4, 1)]


async def test_the_endpoints_stay_where_they_are_if_their_changes_cannot_be_published(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    await scene.publish(*some_life(event, 1))
    await scene.fold(**ON)
    await scene.publish(event("connectivity.connected", "e1"))
    await scene.fold(changes="7d")
    with pytest.raises(SettingError, match=r"PROJECTOR_PUBLISH is not set, but the changes of [1-3] commits"):
        await divide(scene, 2, publish="off")
    await jetstream.delete_stream(NAME)
    await jetstream.add_stream(StreamConfig(name="PART", subjects=[f"{PREFIX}.connectivity.*"]))
    with pytest.raises(FeedStreamMissingError):
        await Projector(scene.settings(**ON))._divide(2)  # `init` would create the stream
    assert await scene.query("SELECT DISTINCT shards FROM projector_checkpoint") == [(SHARDS,)]
    assert len(await scene.query("SELECT FROM projector_feed")) == SHARDS
    await scene.query("DELETE FROM projector_feed")
    await divide(scene, 2, publish="off")
    assert await scene.query("SELECT FROM projector_feed") == []


async def test_changes_are_published_again_after_the_tables_were_emptied_as_the_doctor_says(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    await scene.publish(*some_life(event, 1))
    await scene.fold(**ON)
    await scene.query("TRUNCATE projector_checkpoint, endpoint_change, projector_feed")
    await scene.nobody_leads()
    assert (await Projector(scene.settings(**ON)).rebuild()).differences is not None
    before = (await jetstream.stream_info(NAME)).state.last_seq
    await scene.publish(*some_life(event, 2))
    await scene.fold(**ON)
    added = [message for message in await stored(jetstream) if (message.seq or 0) > before]
    keys = [json.loads(message.data or b"") for message in added]
    assert [(one["shard"], one["commit_no"], one["position"], one["endpoint_id"], one["facet"]) for one in keys] == (
        await logged(scene)
    )[0]


async def test_an_endpoint_keeps_its_order_over_everything(
    scene: Scene, jetstream: JetStreamContext, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "_SAVE_EVERY_S", 600.0)
    for seed, shards in enumerate((3, 2, 4, 1, 3)):
        await divide(scene, shards)
        daemon = scene.follow(batch_size=20, **ON)
        await daemon.hears("active", shards)
        await scene.publish(*some_life(event, seed, 150))
        await daemon.hears("published")
        await daemon.abandon()
    await scene.fold(**ON)
    assert await in_stream(jetstream) == await logged(scene)
    assert {shard_of(one["endpoint_id"], 3) for one in await published(jetstream)} == {0, 1, 2}


async def test_a_publisher_that_slept_through_a_division_moves_no_cursor(scene: Scene, event: Event) -> None:
    await scene.publish(*some_life(event, 1))
    await scene.fold(**ON)
    async with feed_module.opened(scene.database_url) as log:
        before = await log.cursors()
        await divide(scene, 2)
        for cursor in before:
            with pytest.raises(FeedMovedError):
                await log.move([(cursor, cursor._replace(stream_seq=1))])
