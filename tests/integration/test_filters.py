"""Messages of other protocols that share the subject prefix must not be delivered."""

from typing import Any

import pytest
from nats.aio.client import Client

from projector.runtime import Projector
from projector.stream import subjects
from tests.support.fixtures import Event
from tests.support.scene import Scene

CONSUMER = "endpoint-state-projector"
MEASURED = subjects.build("dcx", "data-collection.data-points-received.temperature"), b"x" * 2000


async def delivered(client: Client, stream: str) -> int:
    """Return how many messages the daemon's consumer has sent."""
    info = await client.jetstream().consumer_info(stream, CONSUMER)
    sent: int = info.delivered.consumer_seq if info.delivered is not None else 0
    return sent


@pytest.mark.parametrize("settings", [{}, {"originators": ["kpc", "epr"]}], ids=["every-originator", "two-originators"])
async def test_messages_of_other_groups_are_not_delivered(
    settings: dict[str, Any], scene: Scene, event: Event, nats_client: Client
) -> None:
    ours = [event("connectivity.connected", f"e{number}") for number in range(5)]
    unknown = subjects.build("kpc", "config.rolled-back"), b"unknown type, known group"
    await scene.publish(*([MEASURED] * 20), *ours, *([MEASURED] * 20), unknown, MEASURED)
    await scene.fold(**settings)
    assert await delivered(nats_client, scene.stream) == len(ours) + 1
    assert [row[0] for row in await scene.table()] == [f"e{number}" for number in range(5)]
    assert await scene.query("SELECT skipped::text FROM projector_checkpoint") == [('{"config.rolled-back": 1}',)]
    assert await scene.dead_letters() == []


async def test_consumer_for_every_group_is_replaced_at_the_same_position(
    scene: Scene, event: Event, nats_client: Client
) -> None:
    await scene.publish(event("connectivity.connected", "before"))
    await scene.fold()
    jetstream = nats_client.jetstream()
    config = (await jetstream.consumer_info(scene.stream, CONSUMER)).config
    config.filter_subjects, config.filter_subject = None, subjects.filters()[0]
    config.opt_start_seq = 2
    await jetstream.delete_consumer(scene.stream, CONSUMER)
    await jetstream.add_consumer(scene.stream, config)
    await scene.publish(MEASURED, event("connectivity.connected", "after"), MEASURED)
    await scene.fold()
    assert await delivered(nats_client, scene.stream) == 1
    assert [row[0] for row in await scene.table()] == ["after", "before"]


async def test_verification_and_status_read_only_the_groups_of_the_revision(scene: Scene, event: Event) -> None:
    await scene.publish(MEASURED, event("connectivity.connected", "e"), MEASURED)
    await scene.fold()
    await scene.publish(MEASURED, MEASURED)
    projector = Projector(scene.settings())
    assert (await projector.status()).lag_messages == 0
    report = await projector.verify()
    assert (report.replayed, report.clean) == (1, True)
