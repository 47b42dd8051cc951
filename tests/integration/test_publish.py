"""Changes are published to JetStream: each once, in order, over outages of any of the servers."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice
from typing import Any, TypeAlias
from urllib.parse import unquote

import asyncpg
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig

from projector.app.publish import Publishing
from projector.composition import Composition
from projector.dev.embedded import EmbeddedNats
from projector.dev.fleet import Fleet
from projector.errors import BrokerUnavailableError, FeedMovedError, FeedStreamMissingError
from projector.runtime import Projector
from projector.storage import feed as feed_module
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.support.fixtures import Event, Eventually, Wire
from tests.support.published import NAME, ON, PREFIX, published, stored
from tests.support.scene import Daemon, Recorder, Scene

Outage: TypeAlias = Callable[[Daemon], Awaitable[None]]


@pytest.fixture
async def jetstream(nats_client: Client) -> JetStreamContext:
    return nats_client.jetstream()


@pytest.fixture
async def changes_stream(jetstream: JetStreamContext) -> None:
    await jetstream.add_stream(StreamConfig(name=NAME, subjects=[f"{PREFIX}.>"]))


async def logged(scene: Scene) -> list[tuple[Any, ...]]:
    """The changes to publish, in order."""
    return await scene.query(
        "SELECT commit_no, position, endpoint_id, facet FROM endpoint_change "
        "WHERE verdict IN ('applied', 'corrected') "
        'ORDER BY commit_no, coalesce(position, 0), endpoint_id COLLATE "C", facet COLLATE "C"',
    )


def keys(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(one["commit_no"], one["position"], one["endpoint_id"], one["facet"]) for one in messages]


@pytest.fixture
def fleet(codec: Codec) -> list[Wire]:
    simulated = Fleet(endpoints=20, seed=3, start_at=1_700_000_000_000, interval_ms=100).events()
    return [
        (subjects.build(one.originator, one.event_type), codec.encode(one.event_type, one.record))
        for one in islice(simulated, 1200)
    ]


@pytest.fixture
def all_published(scene: Scene, jetstream: JetStreamContext, eventually: Eventually) -> Any:
    """Waits until everything is folded and published up to a position, and compares the stream with the log."""

    async def all_published(position: int) -> None:
        async def complete() -> bool:
            folded = await scene.position() == position
            return folded and (await jetstream.stream_info(NAME)).state.last_seq >= len(await logged(scene))

        await eventually(complete)
        assert keys(await published(jetstream)) == await logged(scene)

    return all_published


@pytest.mark.usefixtures("changes_stream")
async def test_each_applied_change_is_published_once_and_in_order(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    await scene.publish(
        event("connectivity.connected", "e.1", appVersionName="v1", originatorReplicaId="kpc-1"),
        event("connectivity.connected", "e.1", originatorReplicaId="kpc-2", timestamp=1_600_000_000_000),
        event("connectivity.connected", "e2", originatorReplicaId="kpc-1"),
    )
    await scene.fold(**ON)
    messages = await stored(jetstream)
    assert [message.subject for message in messages] == [
        f"{PREFIX}.application.e%2E1",
        f"{PREFIX}.connectivity.e%2E1",
        f"{PREFIX}.connectivity.e2",
    ]
    assert keys(await published(jetstream)) == await logged(scene)
    first = json.loads(messages[0].data or b"")
    ((committed_at, stored_at),) = await scene.query("SELECT committed_at, stored_at FROM endpoint_change LIMIT 1")
    assert first == {
        "shard": 0,
        "commit_no": 1,
        "committed_at": committed_at.isoformat(timespec="milliseconds"),
        "endpoint_id": "e.1",
        "facet": "application",
        "verdict": "applied",
        "position": 1,
        "occurred_at": "2023-11-14T22:13:20.000+00:00",
        "stored_at": stored_at.isoformat(timespec="milliseconds"),
        "event": "connectivity.connected",
        "originator": "kpc",
        "replica": "kpc-1",
        "before": None,
        "after": {"app_version": "v1", "app_version_changed_at": "2023-11-14T22:13:20+00:00"},
    }
    assert len({message.headers["Nats-Msg-Id"] for message in messages if message.headers}) == 3


@pytest.mark.usefixtures("changes_stream")
async def test_folding_what_is_published_gives_the_table(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire]
) -> None:
    await scene.publish(*fleet)
    await scene.fold(batch_size=50, **ON)
    assert keys(await published(jetstream)) == await logged(scene)
    rows: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for one in await published(jetstream):
        rows[one["endpoint_id"]] |= one["after"] or {}
    assert {endpoint_id: row.get("connectivity_status", "unknown") for endpoint_id, row in rows.items()} == dict(
        await scene.query("SELECT endpoint_id, connectivity_status FROM endpoint_state")
    )
    assert {endpoint_id: row.get("metadata", {}) for endpoint_id, row in rows.items()} == {
        endpoint_id: json.loads(metadata)
        for endpoint_id, metadata in await scene.query("SELECT endpoint_id, metadata FROM endpoint_state")
    }


@pytest.mark.usefixtures("changes_stream")
async def test_a_feed_begins_with_what_is_folded_after_it_was_switched_on(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    await scene.publish(event("metadata.updated", "e1", added=["a"]))
    await scene.fold(changes="7d")
    await scene.publish(event("metadata.updated", "e1", added=["b"]))
    await scene.fold(**ON)
    assert [one["position"] for one in await published(jetstream)] == [2]


@pytest.mark.usefixtures("changes_stream")
async def test_a_commit_of_many_changes_is_published_page_by_page(
    scene: Scene, jetstream: JetStreamContext, event: Event, monkeypatch: pytest.MonkeyPatch, fleet: list[Wire]
) -> None:
    monkeypatch.setattr(feed_module, "_PAGE", 7)
    many = event("connectivity.disconnected", endpointIds=[f"e{number}" for number in range(50)])
    await scene.publish(many, *fleet[:60], many)
    await scene.fold(batch_size=40, **ON)
    assert keys(await published(jetstream)) == await logged(scene)


ODD = ["a b", "a.b", "*", ">", "%2E", "é", "終\u202e", "a\tb\r\nc", "\x7f\x01", "$JS", "a/b:c~", "x" * 2600, "é" * 1300]


@pytest.mark.usefixtures("changes_stream")
async def test_any_endpoint_id_becomes_a_subject(scene: Scene, jetstream: JetStreamContext, event: Event) -> None:
    await scene.publish(*(event("metadata.updated", endpoint_id, added=["k"]) for endpoint_id in ODD))
    await scene.fold(**ON)
    found = {
        json.loads(message.data or b"")["endpoint_id"]: (message.subject or "").removeprefix(f"{PREFIX}.metadata.")
        for message in await stored(jetstream)
    }
    assert [*found] == ODD
    assert {unquote(found[endpoint_id]) for endpoint_id in ODD if len(endpoint_id) < 1000} == set(ODD[:-2])
    assert all("." not in token and token.isascii() and token.isprintable() for token in found.values())
    assert [len(found[endpoint_id]) for endpoint_id in ODD[-2:]] == [72, 72]
    assert len(set(found.values())) == len(ODD)


async def test_a_change_too_large_for_the_stream_is_published_without_its_values(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    await jetstream.add_stream(StreamConfig(name=NAME, subjects=[f"{PREFIX}.>"], max_msg_size=4500))
    small, large = [f"key-{number}" for number in range(9)], ["z" * 3500]
    for added, removed in ((small, []), (large, small), ([], large)):
        await scene.publish(event("metadata.updated", "e1", added=added, removed=removed))
    await scene.fold(**ON)
    found = await published(jetstream)
    assert [one.get("omitted") for one in found] == [None, ["before", "after"], ["before"]]
    assert [one["before"] is None for one in found] == [True, True, True]
    assert [one["after"] is None for one in found] == [False, True, False]


# What goes wrong.


async def test_publishing_waits_for_a_stream_and_the_folding_does_not(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire], all_published: Any, eventually: Eventually
) -> None:
    await scene.publish(*fleet[:100])
    daemon = scene.follow(**ON)
    await daemon.hears("caught up at 100")
    await daemon.hears("publishing failed")
    await scene.publish(*fleet[100:200])

    async def folded_and_said() -> bool:
        ((error,),) = await scene.query("SELECT error FROM projector_feed")
        return await scene.position() == 200 and f"no stream stores {PREFIX}.>" in (error or "")

    await eventually(folded_and_said)
    await jetstream.add_stream(StreamConfig(name=NAME, subjects=[f"{PREFIX}.*.*"]))
    await daemon.hears("publishing resumed")
    await all_published(200)
    recorder = await daemon.stop()
    assert [type(failure) for failure in recorder.failures] == [FeedStreamMissingError]
    assert await scene.query("SELECT error, error_since FROM projector_feed") == [(None, None)]


async def test_a_stream_of_another_name_is_found_by_its_subjects(
    scene: Scene, jetstream: JetStreamContext, event: Event
) -> None:
    await jetstream.add_stream(StreamConfig(name=NAME, subjects=["elsewhere"]))
    await jetstream.add_stream(StreamConfig(name="PART", subjects=[f"{PREFIX}.connectivity.*"]))
    await scene.publish(event("connectivity.connected", "e1"))
    recorder = await scene.fold(**ON)
    assert [type(failure) for failure in recorder.failures] == [FeedStreamMissingError]
    await jetstream.delete_stream("PART")
    await jetstream.add_stream(StreamConfig(name="FLEET", subjects=["other", "fleet.>"]))
    await scene.fold(**ON)
    assert len(await stored(jetstream, "FLEET")) == 1
    assert await scene.query("SELECT stream, stream_seq FROM projector_feed") == [("FLEET", 1)]


async def test_publishing_waits_while_the_stream_is_full(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire], all_published: Any
) -> None:
    full = StreamConfig(name=NAME, subjects=[f"{PREFIX}.>"], discard=DiscardPolicy.NEW, max_msgs=30)
    await jetstream.add_stream(full)
    await scene.publish(*fleet[:100])
    daemon = scene.follow(**ON)
    await daemon.hears("caught up at 100")
    await daemon.hears("publishing failed")
    assert len(await stored(jetstream)) == 30
    await jetstream.update_stream(full.evolve(max_msgs=-1))
    await daemon.hears("publishing resumed")
    await all_published(100)
    recorder = await daemon.stop()
    assert [type(failure) for failure in recorder.failures] == [BrokerUnavailableError]
    assert "maximum messages exceeded" in str(recorder.failures[0])


@pytest.fixture
def outage(nats_server: EmbeddedNats, nats_client: Client, eventually: Eventually) -> Outage:
    """Kills NATS, and restarts it when a daemon has noticed."""

    async def outage(daemon: Daemon) -> None:
        failures, reconnects = daemon.recorder.heard["retrying"], nats_client.stats["reconnects"]
        await asyncio.to_thread(nats_server.kill)
        await daemon.hears("retrying", failures + 1)
        await asyncio.to_thread(nats_server.start)

        async def is_connected_again() -> bool:  # what the test sends before that may be lost
            return nats_client.is_connected and nats_client.stats["reconnects"] > reconnects

        await eventually(is_connected_again)

    return outage


@pytest.mark.usefixtures("changes_stream")
async def test_publishing_catches_up_after_nats_was_away(
    scene: Scene, fleet: list[Wire], all_published: Any, eventually: Eventually, outage: Outage
) -> None:
    daemon = scene.follow(**ON)
    for start in (0, 100, 200):
        last = await scene.publish(*fleet[start : start + 100])
        await eventually(partial(scene.query, "SELECT 1 FROM projector_checkpoint WHERE position >= $1", last))
        await outage(daemon)
    await all_published(300)
    await daemon.stop()


@pytest.mark.usefixtures("changes_stream")
async def test_a_crash_between_publishing_and_the_cursor_doubles_nothing(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire]
) -> None:
    """The window of the stream is shorter than any outage here: its last message tells how far publishing came."""
    config = (await jetstream.stream_info(NAME)).config
    await jetstream.update_stream(config.evolve(duplicate_window=0.1))
    await scene.publish(*fleet[:300])
    await scene.fold(batch_size=30, **ON)
    await move_back(scene, commit_no=3)
    await asyncio.sleep(0.2)  # longer than the window
    await scene.publish(*fleet[300:400])
    await scene.fold(**ON)
    assert keys(await published(jetstream)) == await logged(scene)


@pytest.mark.usefixtures("changes_stream")
async def test_without_its_last_message_the_window_of_the_stream_keeps_repeats_out(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire]
) -> None:
    await scene.publish(*fleet[:100])
    await scene.fold(batch_size=30, **ON)
    before = await logged(scene)
    await jetstream.purge_stream(NAME)
    await move_back(scene, commit_no=2)
    await scene.publish(*fleet[100:150])
    await scene.fold(batch_size=30, **ON)
    assert keys(await published(jetstream)) == (await logged(scene))[len(before) :]


@pytest.mark.usefixtures("changes_stream")
async def test_a_stream_that_lost_its_tail_gets_it_again(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire], all_published: Any
) -> None:
    """As after a power cut, if the server syncs late, or after a backup was restored."""
    await scene.publish(*fleet[:100])
    await scene.fold(batch_size=30, **ON)
    kept = (await stored(jetstream))[:40]
    await jetstream.delete_stream(NAME)
    await jetstream.add_stream(StreamConfig(name=NAME, subjects=[f"{PREFIX}.>"]))
    for message in kept:
        await jetstream.publish(message.subject or "", message.data or b"")
    await scene.fold(**ON)
    await all_published(100)


@pytest.mark.usefixtures("changes_stream")
async def test_after_a_restored_backup_the_changes_of_the_commits_made_anew_are_published(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire]
) -> None:
    await scene.publish(*fleet[:60])
    await scene.fold(batch_size=30, **ON)
    names = ("endpoint_state", "projector_checkpoint", "projector_feed", "endpoint_change")
    for name in names:
        await scene.query(f"CREATE TABLE backup_{name} AS SELECT * FROM {name}")
    await scene.publish(*fleet[60:120])
    await scene.fold(batch_size=10, **ON)
    first = await logged(scene)
    for name in names:
        await scene.query(f"TRUNCATE {name}")
        await scene.query(f"INSERT INTO {name} SELECT * FROM backup_{name}")
    await scene.fold(batch_size=20, **ON)
    second = await logged(scene)
    restored = len(await scene.query("SELECT FROM backup_endpoint_change WHERE verdict = 'applied'"))
    assert keys(await published(jetstream)) == first + second[restored:]


@pytest.mark.usefixtures("changes_stream")
async def test_other_messages_in_the_stream_disturb_nothing(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire]
) -> None:
    config = (await jetstream.stream_info(NAME)).config
    await jetstream.update_stream(config.evolve(subjects=[f"{PREFIX}.>", "other"]))
    ended = asyncio.Event()

    async def disturb() -> None:
        while not ended.is_set():
            await jetstream.publish("other", b"")

    disturbing = asyncio.create_task(disturb())
    await scene.publish(*fleet[:300])
    await scene.fold(batch_size=30, **ON)
    ended.set()
    await disturbing
    found = await stored(jetstream, subject=f"{PREFIX}.>")
    assert keys([json.loads(message.data or b"") for message in found]) == await logged(scene)


@pytest.mark.usefixtures("changes_stream")
async def test_two_publishers_double_and_reorder_nothing(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire]
) -> None:
    """As when a leader that was paused resumes: each appends only what follows the end of the stream."""
    await scene.publish(*fleet[:400])
    await scene.fold(batch_size=20, **ON)
    await jetstream.purge_stream(NAME)
    await move_back(scene, commit_no=0)
    config = (await jetstream.stream_info(NAME)).config
    await jetstream.update_stream(config.evolve(duplicate_window=0.1))
    await asyncio.sleep(0.2)  # longer than the window
    settings = scene.settings(**ON)

    async def copy() -> list[Exception]:
        recorder = Recorder()
        publishing = Publishing(Composition(settings), recorder)
        running = asyncio.create_task(publishing.run(lambda: False))
        await asyncio.sleep(0)
        publishing.finish()
        await running
        return recorder.failures

    failures = await asyncio.gather(copy(), copy())
    assert {type(failure) for both in failures for failure in both} <= {FeedMovedError}
    assert await copy() == []
    assert keys(await published(jetstream)) == await logged(scene)


@pytest.mark.usefixtures("changes_stream")
async def test_days_dropped_before_they_were_published_are_reported_and_the_rest_is_published(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire]
) -> None:
    await scene.publish(*fleet[:60])
    await scene.fold(batch_size=20, **ON)
    first = await logged(scene)
    commits = "SELECT commits FROM projector_checkpoint"
    ((published_commits,),) = await scene.query(commits)
    await scene.publish(*fleet[60:120])
    await scene.fold(batch_size=20, changes="7d")
    await scene.query("DELETE FROM endpoint_change")
    lost = (await scene.query(commits))[0][0] - published_commits
    await scene.query("UPDATE projector_checkpoint SET changes_since = clock_timestamp()")
    await scene.publish(*fleet[120:180])
    recorder = await scene.fold(batch_size=20, **ON)
    assert recorder.lost_commits == lost >= 3
    assert keys(await published(jetstream)) == first + await logged(scene)
    assert await scene.query("SELECT lost_commits, lost_at IS NOT NULL FROM projector_feed") == [(lost, True)]
    assert (await scene.fold(**ON)).lost_commits == 0


async def test_a_day_that_is_dropped_while_the_log_is_read_is_reported(
    scene: Scene, fleet: list[Wire], eventually: Eventually
) -> None:
    await scene.publish(*fleet[:60])
    await scene.fold(batch_size=20, **ON)
    ((commits,),) = await scene.query("SELECT commits FROM projector_checkpoint")
    partitions = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'endpoint_change'::regclass"

    async def is_waiting() -> bool:
        return bool(await scene.query("SELECT FROM pg_locks WHERE NOT granted"))

    connection = await asyncpg.connect(scene.database_url)
    try:
        async with feed_module.opened(scene.database_url) as log:
            (cursor,) = await log.cursors()
            async with connection.transaction():
                for (name,) in await connection.fetch(partitions):
                    await connection.execute(f"DROP TABLE {name}")
                await connection.execute("UPDATE projector_checkpoint SET changes_since = clock_timestamp()")
                reading = asyncio.create_task(log.read(cursor))
                await eventually(is_waiting)
            page = await reading
    finally:
        await connection.close()
    assert (list(page.changes), page.lost_commits) == ([], commits)


@pytest.mark.usefixtures("changes_stream")
async def test_corrections_of_a_rebuild_are_published(
    scene: Scene, jetstream: JetStreamContext, fleet: list[Wire]
) -> None:
    await scene.publish(*fleet[:100])
    await scene.fold(**ON)
    await scene.query("UPDATE endpoint_state SET app_version = 'wrong'")
    await Projector(scene.settings()).rebuild()
    await scene.fold(**ON)
    found = await published(jetstream)
    assert keys(found) == await logged(scene)
    corrected = [one for one in found if one["verdict"] == "corrected"]
    assert {one["before"]["app_version"] for one in corrected} == {"wrong"}
    assert {one["position"] for one in corrected} == {None}


@pytest.mark.usefixtures("changes_stream")
async def test_the_standby_continues_where_the_leader_stopped(
    scene: Scene, fleet: list[Wire], all_published: Any
) -> None:
    leader = scene.follow(**ON)
    await leader.hears("active")
    standby = scene.follow(**ON)
    await standby.hears("standing by")
    await scene.publish(*fleet[:100])
    await all_published(100)
    await leader.abandon()
    await standby.hears("active")
    await scene.publish(*fleet[100:200])
    await all_published(200)
    await standby.stop()


async def move_back(scene: Scene, *, commit_no: int) -> None:
    """Leave the cursor as if a crash had come before it was written."""
    await scene.query(
        "UPDATE projector_feed SET commit_no = $1, stream_seq = 1, committed_at = changes_since "
        "FROM projector_checkpoint",
        commit_no,
    )
