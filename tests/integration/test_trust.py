"""Whether the stream is still the one that was folded, and what the daemon does if it is not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from projector.app import supervisor as supervisor_module
from projector.app.projection import Projection
from projector.dev.embedded import EmbeddedNats
from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import Message
from projector.domain.rules import Rules
from projector.errors import (
    EventsLostError,
    FatalError,
    NotMigratedError,
    RulesChangedError,
    StreamMissingError,
    StreamReplacedError,
)
from projector.storage import store as store_module
from projector.storage.locks import LEADER_LOCK
from projector.storage.store import Store
from projector.stream import pull as pull_module
from projector.stream.codec import Codec
from projector.stream.connection import Broker, connected
from projector.stream.provision import create_stream
from tests.support.fixtures import Event, Eventually, Wire
from tests.support.scene import Daemon, Scene
from tests.support.versions import needs_nats

Overtaken = Callable[..., AbstractAsyncContextManager[Daemon]]

Connects = Callable[..., list[Wire]]

TABLES = ("endpoint_state", "projector_checkpoint", "dead_letter")


@pytest.fixture
def jetstream(nats_client: Client) -> JetStreamContext:
    return nats_client.jetstream()


@pytest.fixture
def connects(event: Event) -> Connects:
    """Events that are each folded into a separate row."""

    def connects(first: int, last: int, *, version: str = "v") -> list[Wire]:
        return [
            event("connectivity.connected", f"e{n}", appVersionName=f"{version}{n}") for n in range(first, last + 1)
        ]

    return connects


@pytest.fixture
async def folded(scene: Scene, connects: Connects) -> Scene:
    """A scene in which ten events are folded."""
    await scene.publish(*connects(1, 10))
    await scene.fold()
    return scene


async def everything(scene: Scene) -> list[object]:
    """All rows of the tables, without what the leader notes every few seconds."""
    notes = ["lag_messages", "lag_seen_at", "active_since"]
    return [
        await scene.query(f"SELECT to_jsonb(row) - $1::text[] FROM {name} AS row ORDER BY 1", notes) for name in TABLES
    ]


async def refuses(scene: Scene, error: type[FatalError], advice: str) -> FatalError:
    """The daemon ends at once and changes nothing."""
    before = await everything(scene)
    with pytest.raises(error, match=advice) as refused:
        await scene.follow().end()
    assert await everything(scene) == before
    return refused.value


async def test_a_stream_that_does_not_exist_is_refused(scene: Scene, jetstream: JetStreamContext) -> None:
    await jetstream.delete_stream(scene.stream)
    await refuses(scene, StreamMissingError, "projector init")


async def test_a_stream_that_was_deleted_is_refused(folded: Scene, jetstream: JetStreamContext) -> None:
    await jetstream.delete_stream(folded.stream)
    await refuses(folded, StreamMissingError, "projector init")


async def test_unmigrated_database_is_refused(scene: Scene, empty_database_url: str) -> None:
    with pytest.raises(NotMigratedError, match="projector init"):
        await scene.follow(url=empty_database_url).end()


async def test_a_database_of_another_version_is_refused(folded: Scene) -> None:
    await folded.query("UPDATE projector_migration SET version_num = 'from the future'")
    await refuses(folded, NotMigratedError, r"from the future.*run the newer version")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rules_version", "7"),
        ("revision", "'kaa-2031-01'"),
        ("originators", "'{kpc,epr}'"),
    ],
)
async def test_rows_built_with_other_rules_are_refused(folded: Scene, column: str, value: str) -> None:
    await folded.query(f"UPDATE projector_checkpoint SET {column} = {value}")
    await refuses(folded, RulesChangedError, "projector rebuild")


async def test_folding_fewer_originators_than_before_is_refused(folded: Scene) -> None:
    with pytest.raises(RulesChangedError, match=r"\(all\).*epr.*projector rebuild"):
        await folded.follow(originators="epr").end()


@pytest.mark.parametrize("events", [0, 10, 20])
async def test_recreated_stream_is_refused(
    folded: Scene, jetstream: JetStreamContext, connects: Connects, events: int
) -> None:
    await jetstream.delete_stream(folded.stream)
    await create_stream(Broker(urls=(folded.nats_url,)), folded.stream)
    if events:
        await folded.publish(*connects(1, events))
    await refuses(folded, StreamReplacedError, "created at another time")


MOVED = "stream_created_at = stream_created_at - interval '1 hour'"
"""What NATS makes of a stream whose configuration was edited between two restarts (nats-server issue 8470)."""


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        ("anchor_hash = sha256('other')", "another message"),
        ("anchor_stored_at = anchor_stored_at - interval '1 ms'", "another message"),
        ("position = 11", "ends at position 10"),
        ("position = 0", "position 0"),
        (f"{MOVED}, anchor_hash = sha256('other')", "created at another time, and it holds another message"),
        (f"{MOVED}, position = 11", "created at another time, and it ends at position 10"),
        (f"{MOVED}, anchor_hash = NULL, anchor_stored_at = NULL", "created at another time, .* is gone"),
    ],
    ids=[
        "other payload",
        "other time",
        "without its tail",
        "at no message",
        "created again",
        "created again and shorter",
        "created again without an anchor",
    ],
)
async def test_stream_restored_from_another_one_is_refused(folded: Scene, change: str, evidence: str) -> None:
    await folded.query(f"UPDATE projector_checkpoint SET {change}")
    await refuses(folded, StreamReplacedError, evidence)


async def test_changed_creation_time_is_adopted_if_the_message_at_the_checkpoint_is_the_folded_one(
    folded: Scene, jetstream: JetStreamContext, connects: Connects
) -> None:
    created = (await jetstream.stream_info(folded.stream)).created
    assert created is not None
    await folded.query(f"UPDATE projector_checkpoint SET {MOVED}")
    await folded.publish(*connects(11, 12))
    heard = await folded.fold()
    assert heard.heard["stream recognized"] == 1
    assert await folded.position() == 12
    ((remembered,),) = await folded.query("SELECT stream_created_at FROM projector_checkpoint")
    assert remembered == created.replace(microsecond=created.microsecond // 1000 * 1000)
    assert (await folded.fold()).heard["stream recognized"] == 0


async def test_stream_edited_between_server_restarts_is_followed(
    folded: Scene, nats_server: EmbeddedNats, connects: Connects
) -> None:
    """NATS before 2.12.9 and 2.14.6 changes its creation time (nats-server issue 8470); others keep it."""
    broker = Broker(urls=(nats_server.url,))
    nats_server.stop()
    nats_server.start()
    async with connected(broker, name="test") as client:
        config = (await client.api.stream_info(folded.stream)).config
        await client.api.update_stream(replace(config, description="edited"))
    nats_server.stop()
    nats_server.start()
    async with connected(broker, name="test") as client:
        for subject, payload in connects(11, 12):
            await client.api.publish(subject, payload)
    await folded.fold()
    assert await folded.position() == 12


async def test_changed_creation_time_is_refused_if_the_message_at_the_checkpoint_is_gone(
    folded: Scene, jetstream: JetStreamContext
) -> None:
    await folded.query(f"UPDATE projector_checkpoint SET {MOVED}")
    await jetstream.purge_stream(folded.stream)
    await refuses(folded, StreamReplacedError, "created at another time, .* is gone.*is then lost")


@needs_nats(2, 10)
async def test_stream_that_begins_high_has_lost_nothing(
    scene: Scene, jetstream: JetStreamContext, connects: Connects
) -> None:
    config = (await jetstream.stream_info(scene.stream)).config
    await jetstream.delete_stream(scene.stream)
    await jetstream.add_stream(replace(config, first_seq=1_000_000_000))
    await scene.fold()
    last = await scene.publish(*connects(1, 3))
    assert last == 1_000_000_002
    await scene.fold()
    assert await scene.position() == last
    assert len(await scene.table()) == 3


@asynccontextmanager
async def next_in_the_lead(scene: Scene, eventually: Eventually) -> AsyncIterator[None]:
    """Keep the leader on standby, after it has lost the lead, until the end of the block."""
    connection = await asyncpg.connect(scene.database_url)
    key = (LEADER_LOCK, 0)
    taking = asyncio.create_task(connection.execute("SELECT pg_advisory_lock(hashtextextended($1, $2))", *key))
    await eventually(lambda: scene.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
    yield
    await taking
    await connection.close()


async def test_stream_recreated_while_the_daemon_runs_is_refused_before_any_write(
    folded: Scene,
    jetstream: JetStreamContext,
    connects: Connects,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "_STANDBY_POLL_S", 0.05)
    before = await everything(folded)
    daemon = folded.follow()
    await daemon.hears("active from 10")
    async with next_in_the_lead(folded, eventually):
        await jetstream.delete_stream(folded.stream)
        await daemon.hears("standing by")
        await create_stream(Broker(urls=(folded.nats_url,)), folded.stream)
        await folded.publish(*connects(1, 20))
    with pytest.raises(StreamReplacedError, match="created at another time"):
        await daemon.end()
    assert await everything(folded) == before


async def test_events_removed_by_retention_before_the_start_are_fatal_and_counted(
    folded: Scene, jetstream: JetStreamContext, connects: Connects
) -> None:
    await folded.publish(*connects(11, 30))
    await jetstream.purge_stream(folded.stream, seq=25)  # the first message that stays
    error = await refuses(folded, EventsLostError, r"14 positions.*--accept-gap")
    assert isinstance(error, EventsLostError)
    assert (error.lost, error.checkpoint, error.first) == (14, 10, 25)

    await folded.fold(accept_gap=True)
    assert len(await folded.table()) == 16
    assert await folded.position() == 30
    await folded.fold()


async def test_stream_emptied_after_everything_was_folded_is_followed(
    folded: Scene, jetstream: JetStreamContext, connects: Connects
) -> None:
    await jetstream.purge_stream(folded.stream)
    await folded.fold()
    await folded.publish(*connects(11, 12))
    await folded.fold()
    assert len(await folded.table()) == 12


async def test_stream_emptied_before_everything_was_folded_is_fatal(
    folded: Scene, jetstream: JetStreamContext, connects: Connects
) -> None:
    await folded.publish(*connects(11, 30))
    await jetstream.purge_stream(folded.stream)
    await refuses(folded, EventsLostError, "20 positions")
    await folded.fold(accept_gap=True)
    assert await folded.position() == 30
    await folded.publish(*connects(31, 31))
    await folded.fold()
    assert len(await folded.table()) == 11


async def test_database_restored_from_a_backup_catches_up(folded: Scene, connects: Connects) -> None:
    for name in TABLES:
        await folded.query(f"CREATE TABLE backup_{name} AS TABLE {name}")
    await folded.publish(*connects(5, 40, version="w"))
    await folded.fold()
    before = await folded.table()

    for name in TABLES:
        await folded.query(f"TRUNCATE {name}")
        await folded.query(f"INSERT INTO {name} TABLE backup_{name}")
    assert await folded.position() == 10
    await folded.fold()
    assert await folded.table() == before


async def test_events_removed_by_retention_while_the_daemon_runs_are_fatal(
    folded: Scene, jetstream: JetStreamContext, connects: Connects
) -> None:
    daemon = folded.follow(batch_size=10)
    await daemon.hears("active from 10")
    connection = await asyncpg.connect(folded.database_url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE endpoint_state IN EXCLUSIVE MODE")
        await folded.publish(*connects(11, 500))
        await jetstream.purge_stream(folded.stream, seq=490)
    await connection.close()
    with pytest.raises(EventsLostError, match="--accept-gap"):
        await daemon.hears("committed", 500)
    assert await folded.position() < 490


@pytest.fixture
def overtaken(folded: Scene, connects: Connects, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> Overtaken:
    """A daemon with a hundred messages to fold, held up while a test changes the last ones."""
    monkeypatch.setattr(pull_module, "_IDLE_S", 0.05)
    # The test holds its lock for as long as it takes.
    monkeypatch.setattr(store_module, "LEADER_SETTINGS", {**store_module.LEADER_SETTINGS, "lock_timeout": "0"})

    @asynccontextmanager
    async def overtaken(**options: Any) -> AsyncIterator[Daemon]:
        await folded.publish(*connects(11, 110))
        connection = await asyncpg.connect(folded.database_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE endpoint_state IN EXCLUSIVE MODE")
            daemon = folded.follow(batch_size=5, **options)
            await daemon.hears("active from 10")
            waiting = "SELECT 1 FROM pg_locks WHERE relation = 'endpoint_state'::regclass AND NOT granted"
            await eventually(lambda: folded.query(waiting))
            yield daemon
        await connection.close()

    return overtaken


@pytest.mark.parametrize("until_caught_up", [False, True])
async def test_stream_emptied_while_the_daemon_runs_is_fatal(
    folded: Scene, jetstream: JetStreamContext, overtaken: Overtaken, until_caught_up: bool
) -> None:
    async with overtaken(until_caught_up=until_caught_up) as daemon:
        await jetstream.purge_stream(folded.stream)
    with pytest.raises(EventsLostError, match="--accept-gap") as lost:
        await daemon.end()
    assert (lost.value.checkpoint, lost.value.first) == (await folded.position(), 111)
    assert 10 < lost.value.checkpoint < 110
    assert len(await folded.table()) == lost.value.checkpoint  # messages read before are still folded


async def test_stream_emptied_while_the_daemon_runs_is_followed_with_accept_gap(
    folded: Scene, jetstream: JetStreamContext, overtaken: Overtaken
) -> None:
    async with overtaken(until_caught_up=True, accept_gap=True) as daemon:
        await jetstream.purge_stream(folded.stream)
    heard = await daemon.end()
    assert heard.errors == []
    assert heard.heard["caught up at 110"] == 1
    assert await folded.position() == 110
    await folded.fold()


@pytest.mark.parametrize("until_caught_up", [False, True])
async def test_daemon_does_not_wait_for_deleted_messages(
    folded: Scene, jetstream: JetStreamContext, overtaken: Overtaken, eventually: Eventually, until_caught_up: bool
) -> None:
    async with overtaken(until_caught_up=until_caught_up) as daemon:
        # Those that have been sent by now are folded all the same.
        await asyncio.gather(*(jetstream.delete_msg(folded.stream, position) for position in range(11, 111)))
    if until_caught_up:
        await daemon.end()
    else:
        await eventually(lambda: folded.query("SELECT 1 FROM projector_checkpoint WHERE lag_messages = 0"))
        await daemon.stop()
    reached = await folded.position()
    assert 10 < reached < 110
    assert daemon.recorder.heard[f"caught up at {reached}"] == 1
    assert daemon.recorder.errors == []
    assert len(await folded.table()) == reached


async def test_filtered_and_deleted_messages_are_no_loss(
    scene: Scene, jetstream: JetStreamContext, connects: Connects
) -> None:
    await jetstream.update_stream(name=scene.stream, subjects=["kaa.v1.events.*.endpoint.>", "other.>"])
    for number in range(1, 10):
        await scene.publish(*connects(number, number), ("other.subject", b""))
    await jetstream.delete_msg(scene.stream, 5)
    await scene.fold(batch_size=3)
    assert [row[0] for row in await scene.table()] == ["e1", "e2", "e4", "e5", "e6", "e7", "e8", "e9"]
    assert await scene.position() == 17
    await scene.fold()


async def test_consumer_before_the_checkpoint_is_moved_and_nothing_is_folded_again(
    folded: Scene, jetstream: JetStreamContext
) -> None:
    before = await everything(folded)
    (consumer,) = await jetstream.consumers_info(folded.stream)
    await jetstream.delete_consumer(folded.stream, consumer.name)
    await jetstream.add_consumer(folded.stream, replace(consumer.config, opt_start_seq=1))
    heard = await folded.fold()
    assert heard.heard["committed"] == 0
    assert await everything(folded) == before
    (consumer,) = await jetstream.consumers_info(folded.stream)
    assert consumer.num_pending == 0


async def test_redelivered_batch_is_not_folded_again_after_a_clock_step(
    scene: Scene, event: Event, codec: Codec
) -> None:
    """If the first of these were folded after the third, it would win."""
    store = Store(scene.database_url)
    await store.open()
    checkpoint = Checkpoint(
        stream="S", stream_created_at=1, rules=Rules(version=1, revision="kaa-2017-04", originators=())
    )
    await store.begin(checkpoint)
    projection = Projection(codec, store, checkpoint)
    sent = [(2000, "x"), (500, "x"), (1000, "y")]
    messages = [
        Message(n, 5000, *event("connectivity.connected", "e", timestamp=at, originatorReplicaId=replica, **version))
        for n, (at, replica) in enumerate(sent, start=1)
        if (version := {"appVersionName": f"v{n}"})
    ]
    await projection.process(await projection.decode(messages))
    before = await everything(scene)
    assert await scene.query("SELECT app_version FROM endpoint_state") == [("v3",)]
    for again in (messages[:1], messages[:2], messages):
        await projection.process(await projection.decode(again))
        assert await everything(scene) == before
    await store.close()


@needs_nats(2, 10)
async def test_messages_skipped_by_the_server_after_a_filtered_purge_are_folded(
    scene: Scene, jetstream: JetStreamContext, event: Event, eventually: Eventually
) -> None:
    """NATS 2.12 and 2.14 skip them (nats-server issue 8571); other versions deliver them anyway."""
    kept = [event("connectivity.connected", f"kept{number}", originator="a") for number in range(30)]
    purged = [event("connectivity.connected", f"purged{number}", originator="b") for number in range(30)]
    daemon = scene.follow(originators="a,b", batch_size=3)
    await daemon.hears("active")
    connection = await asyncpg.connect(scene.database_url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE endpoint_state IN EXCLUSIVE MODE")
        await scene.publish(*(message for pair in zip(kept, purged, strict=True) for message in pair))
        waiting = "SELECT 1 FROM pg_locks WHERE relation = 'endpoint_state'::regclass AND NOT granted"
        await eventually(lambda: scene.query(waiting))
        await jetstream.purge_stream(scene.stream, subject="kaa.v1.events.b.>")
    await connection.close()
    all_kept = "SELECT 1 FROM endpoint_state WHERE endpoint_id LIKE 'kept%' HAVING count(*) = 30"
    await eventually(lambda: scene.query(all_kept))
    await scene.publish(event("connectivity.connected", "later", originator="a"))
    await eventually(lambda: scene.query("SELECT 1 FROM endpoint_state WHERE endpoint_id = 'later'"))
    await daemon.stop()
