"""A database holds what one stream implies; another stream is refused everywhere."""

import pytest

from projector import OtherStreamError, Projector
from projector.stream.connection import Broker, connected
from tests.support.fixtures import Event
from tests.support.scene import Scene

OTHER = "OTHER_EVENTS"


@pytest.fixture
async def other(scene: Scene, event: Event) -> Projector:
    """A projector of another stream, on a database that follows the scene's."""
    await scene.publish(event("connectivity.connected", "a"))
    async with connected(Broker(urls=(scene.nats_url,)), name="test") as client:
        await client.api.add_stream(name=OTHER, subjects=["other.>"])
    return Projector(scene.settings(stream=OTHER))


async def test_every_command_refuses_another_stream(scene: Scene, other: Projector) -> None:
    await scene.fold()
    for command in (other.run(), other.status(), other.wait(1, timeout_s=0), other.verify()):
        with pytest.raises(OtherStreamError, match=f"{scene.stream}.*{OTHER}.*replaces its rows"):
            await command


async def test_rebuild_of_another_stream_is_refused_while_a_daemon_leads(scene: Scene, other: Projector) -> None:
    daemon = scene.follow()
    await daemon.hears("caught up at 1")
    before = await scene.table()
    with pytest.raises(OtherStreamError):
        await other.rebuild()
    assert await scene.table() == before
    await daemon.stop()


async def test_rebuild_replaces_the_rows_of_the_other_stream_once_its_daemon_is_stopped(
    scene: Scene, other: Projector
) -> None:
    await scene.fold()
    assert (await other.rebuild()).differences.extra == 1
    assert (await other.verify()).clean
    assert await scene.table() == []
