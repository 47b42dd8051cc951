"""The doctor on real servers with several shards: it looks at each of them."""

from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from projector.queries import inspection as database_inspection
from projector.runtime import Projector
from projector.stream import inspection as broker_inspection
from projector.stream import subjects
from projector.stream.consumers import durable_name
from tests.support import servers
from tests.support.fixtures import Event, Eventually, Query
from tests.support.nats_client import lasting_client
from tests.support.patience import PATIENCE_S
from tests.support.scene import Scene
from tests.support.versions import FAULTS, NATS_VERSION
from tests.support.workers import silent_worker

STREAM = "KAA_ENDPOINT_EVENTS"
CONSUMER = "endpoint-state-projector"
CONSUMERS = [durable_name(CONSUMER, shard) for shard in range(3)]
OF_THE_SERVERS = {"fsync-off", "full-page-writes-off"} | FAULTS


async def findings(scene: Scene, **settings: Any) -> dict[str, str]:
    """The texts of the findings, by name, without those that are the same in every test."""
    found = (await Projector(scene.settings(**settings)).doctor()).findings
    return {finding.name: finding.what for finding in found if finding.name not in OF_THE_SERVERS}


@pytest.fixture
async def divided(scene: Scene, event: Event, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A projection with three shards that has folded some events; a shard may be without a leader for long."""
    monkeypatch.setattr(database_inspection, "_TAKEOVER_S", PATIENCE_S)
    await Projector(scene.settings()).init(shards=3)
    await scene.publish(*(event("connectivity.connected", f"e{number}") for number in range(9)))
    await scene.fold()
    await scene.nobody_leads()  # what the doctor says depends on it
    return scene


async def test_doctor_finds_nothing_wrong_with_sound_shards(divided: Scene) -> None:
    assert await findings(divided) == {}
    daemon = divided.follow()
    await daemon.hears("active", 3)
    assert await findings(divided) == {}
    await daemon.stop()


async def test_doctor_finds_a_shard_without_a_leader(
    divided: Scene, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_inspection, "_TAKEOVER_S", 0.0)
    daemon = divided.follow()
    await daemon.hears("active", 3)
    async with silent_worker(divided.database_url):

        async def one_is_given_up() -> bool:
            return [*await findings(divided)] == ["shard-without-leader"]

        await eventually(one_is_given_up)
        free = [one["shard"] for one in (await Projector(divided.settings()).status()).shards if not one["active"]]
        said = {"shard-without-leader": f"shard {free[0]} has no leader, and others have one"}
        assert await findings(divided) == said
    await daemon.hears("active", 4)
    assert await findings(divided) == {}


async def test_shard_that_changes_hands_is_not_reported(divided: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_inspection, "_TAKEOVER_S", PATIENCE_S)
    first = divided.follow()
    await first.hears("active", 3)
    second = divided.follow()
    assert await findings(divided) == {}
    await second.hears("active", 1)
    await first.stop()
    assert await findings(divided) == {}
    await second.hears("active", 3)


async def test_doctor_finds_the_altered_consumer_of_a_shard(divided: Scene, nats_client: Client) -> None:
    jetstream = nats_client.jetstream()
    ours = (await jetstream.consumer_info(STREAM, CONSUMERS[2])).config
    await jetstream.delete_consumer(STREAM, CONSUMERS[2])
    assert await findings(divided) == {}  # the daemon creates it again
    ours.headers_only = True
    await jetstream.add_consumer(STREAM, ours)
    assert await findings(divided) == {
        "consumer-unusable": f"consumer '{CONSUMERS[2]}' delivers nothing that can be folded: "
        "it delivers headers without payloads"
    }
    await jetstream.delete_consumer(STREAM, CONSUMERS[2])
    await jetstream.add_consumer(
        STREAM, ConsumerConfig(durable_name=CONSUMERS[2], ack_policy=AckPolicy.ALL, filter_subject="kaa.>")
    )
    (said,) = (await findings(divided)).values()
    assert said.startswith(f"consumer '{CONSUMERS[2]}' was not created by a projector")


async def test_doctor_finds_a_consumer_of_a_shard_that_another_database_uses(
    divided: Scene, other_database_url: str
) -> None:
    other = divided.follow(url=other_database_url, consumer=CONSUMERS[2])
    await other.hears("active")
    assert await findings(divided) == {
        "consumer-shared": f"another process pulls from consumer '{CONSUMERS[2]}': shard 2 has no leader"
    }


async def test_doctor_counts_the_consumers_that_are_missing(scene: Scene, nats_client: Client, event: Event) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.delete_stream(STREAM)
    await jetstream.add_stream(name=STREAM, subjects=list(subjects.filters()), max_consumers=3)
    await Projector(scene.settings()).init(shards=3)
    assert [*await findings(scene)] == ["consumer-limit-to-replay"]
    await jetstream.add_consumer(STREAM, ConsumerConfig(durable_name="stray"))
    assert await findings(scene) == {
        "consumer-limit": "the stream or the account allows only 2 more consumers (max_consumers), "
        "and 3 of the daemon's do not exist"
    }
    await jetstream.delete_consumer(STREAM, "stray")
    await scene.publish(event("connectivity.connected", "e"))
    await scene.fold()
    assert [*await findings(scene)] == ["consumer-limit-to-replay"]
    await jetstream.delete_consumer(STREAM, CONSUMERS[1])
    await jetstream.add_consumer(STREAM, ConsumerConfig(durable_name="stray"))
    assert [*await findings(scene)] == ["consumer-limit"]


def user(name: str, consumers: list[str]) -> str:
    """A user who may use some consumers by their names."""
    needs = (
        *broker_inspection.DAEMON_NEEDS,
        "$JS.API.CONSUMER.CREATE.{stream}",
        *((broker_inspection.LONG_ACKNOWLEDGEMENT,) if NATS_VERSION >= (2, 14) else ()),
    )
    permitted = dict.fromkeys(need.format(stream=STREAM, consumer=consumer) for need in needs for consumer in consumers)
    allowed = ", ".join(f'"{subject}"' for subject in permitted)
    return f'{{user: {name}, password: p, permissions: {{publish: [{allowed}], subscribe: ["_INBOX.>"]}}}}'


async def test_doctor_names_the_missing_permissions_for_the_consumer_of_each_shard(
    server_folder: Path, database_url: str, query: Query, event: Event
) -> None:
    users = ["{user: admin, password: p}", user("all", CONSUMERS), user("narrow", CONSUMERS[:1])]
    config = f"accounts: {{fleet: {{jetstream: enabled, users: [{', '.join(users)}]}}}}"
    with servers.nats_in(server_folder / "nats", config=config) as server:

        def url(name: str) -> str:
            return server.url.replace("//", f"//{name}:p@")

        async with lasting_client(url("admin")) as admin:
            jetstream = admin.jetstream()
            await jetstream.add_stream(name=STREAM, subjects=list(subjects.filters()))

            async def publish(*messages: tuple[str, bytes], headers: dict[str, str] | None = None) -> int:
                return max([(await jetstream.publish(*message, headers=headers)).seq for message in messages])

            scene = Scene(url("all"), database_url, STREAM, publish, query)
            await Projector(scene.settings(nats_url=url("admin"))).init(shards=3)
            await publish(event("connectivity.connected", "e"))
            await scene.fold()
            assert [*await findings(scene)] == ["nats-permissions-to-replay"]
            found = await findings(scene, nats_url=url("narrow"))
            assert {name for name in found if name != "nats-permissions-to-acknowledge"} == {"nats-permissions"}
            lacked = found["nats-permissions"].removeprefix("the NATS user may not use: ").split(", ")
            assert lacked == [
                need.format(stream=STREAM, consumer=consumer)
                for need in broker_inspection.DAEMON_NEEDS
                if "{consumer}" in need
                for consumer in CONSUMERS[1:]
            ]


async def test_doctor_finds_a_row_of_the_checkpoint_that_is_missing(divided: Scene) -> None:
    await divided.query("DELETE FROM projector_checkpoint WHERE shard = 1")
    found = await findings(divided)
    assert found.pop("checkpoint-incomplete") == "projector_checkpoint has 2 of the rows of 3 shards"
    assert found == {}


async def test_doctor_finds_a_shard_that_lost_events(divided: Scene, nats_client: Client) -> None:
    await divided.query(
        "UPDATE projector_checkpoint SET position = 3, anchor_stored_at = NULL, anchor_hash = NULL WHERE shard = 1"
    )
    await nats_client.jetstream().purge_stream(STREAM, seq=7)
    found = await findings(divided)
    assert found["events-lost"] == "the stream begins at position 7, but the table is folded up to 3 only"
    assert found.keys() == {"events-lost", "beginning-gone"}


async def test_doctor_finds_another_stream_by_the_checkpoint_of_any_shard(divided: Scene) -> None:
    await divided.query("UPDATE projector_checkpoint SET anchor_hash = sha256('other') WHERE shard = 1")
    assert [*await findings(divided)] == ["stream-replaced"]
