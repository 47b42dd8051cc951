"""Servers in memory."""

from collections.abc import AsyncIterator, Iterator

import pytest
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from projector.app import supervisor as supervisor_module
from projector.stream.codec import Codec
from tests.support.fixtures import Event
from tests.support.memory.scene import MemoryScene


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Shorten the daemon's pauses to one turn of the loop; yields the numbers of the growing pauses so far."""
    numbers: list[int] = []

    def note(details: RetryDetails) -> None:
        numbers.append(details.retry_num)

    monkeypatch.setattr(supervisor_module, "_STANDBY_POLL_S", 0)
    monkeypatch.setattr(supervisor_module, "_PAUSE_AFTER_PROGRESS_S", 0)
    set_on_retry_hooks([note])
    with stamina.set_testing(True, attempts=1000):
        yield numbers
    set_on_retry_hooks(None)


@pytest.fixture
async def scene(codec: Codec, event: Event, pauses: list[int]) -> AsyncIterator[MemoryScene]:
    """A stream and a database; the daemons that a test starts between them end with it."""
    del pauses  # are made short
    scene = MemoryScene(codec, event)
    yield scene
    for daemon in scene.daemons:
        await daemon.abandon()
