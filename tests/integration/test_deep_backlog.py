"""Batches grow in a deep backlog, and change nothing but their size."""

import pytest

from projector import Committed, Notification, Observer, Projector, composition
from projector.dev.embedded import EmbeddedNats
from projector.stream import subjects
from tests.support.fixtures import Event, Rows, Wire
from tests.support.scene import Scene

DELIVERED_AT_ONCE = 5
LARGEST = 60


class Sizes(Observer):
    """The sizes of the batches that were committed."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def notify(self, notification: Notification) -> None:
        match notification:
            case Committed(outcome=outcome):
                self.sizes.append(outcome.messages)


async def everything(scene: Scene, url: str) -> tuple[Rows, ...]:
    return await scene.table(url), await scene.ask(url, "SELECT position, reason FROM dead_letter ORDER BY position")


@pytest.fixture(autouse=True)
def small_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "DELIVERED_AT_ONCE", DELIVERED_AT_ONCE)


@pytest.fixture
def backlog(event: Event) -> list[Wire]:
    """Events of 50 endpoints, several of each in a row, and messages that leave holes or cannot be decoded."""
    messages: list[Wire] = []
    for number in range(1500):
        at = 1_700_000_000_000 + number
        messages.append(event("metadata.updated", f"e{number // 10 % 50}", added=[f"k{number}"], timestamp=at))
        if number % 40 == 0:
            messages.append((subjects.build("kpc", "connectivity.connected"), b"\xff"))
        if number % 30 == 0:
            messages.append((subjects.build("dcx", "data-collection.data-points-received.t"), b""))
    return messages


async def test_large_batches_lead_to_the_same_tables(
    scene: Scene, backlog: list[Wire], other_database_url: str
) -> None:
    await scene.publish(*backlog)
    await scene.fold(url=other_database_url, consumer="small-batches", batch_size=DELIVERED_AT_ONCE)
    observer = Sizes()
    async with Projector(scene.settings(batch_size=LARGEST), observers=(observer,)) as projector:
        await projector.run(until_caught_up=True)
        assert (await projector.verify()).clean
    assert observer.sizes[0] <= DELIVERED_AT_ONCE
    assert DELIVERED_AT_ONCE < max(observer.sizes) <= LARGEST
    assert observer.sizes[-1] <= DELIVERED_AT_ONCE
    assert await everything(scene, scene.database_url) == await everything(scene, other_database_url)


async def test_faults_in_a_deep_backlog_lose_nothing(
    scene: Scene, backlog: list[Wire], other_database_url: str, nats_server: EmbeddedNats
) -> None:
    last = await scene.publish(*backlog)
    await scene.fold(url=other_database_url, consumer="small-batches", batch_size=DELIVERED_AT_ONCE)
    daemon = scene.follow(batch_size=LARGEST)
    for commits in (8, 16, 24):
        await daemon.hears("committed", commits)
        failed = daemon.recorder.heard["retrying"]
        await scene.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await daemon.hears("retrying", failed + 1)
        nats_server.kill()
        await daemon.hears("retrying", failed + 2)
        nats_server.start()
    await daemon.hears(f"caught up at {last}")
    await daemon.stop()
    assert await everything(scene, scene.database_url) == await everything(scene, other_database_url)
