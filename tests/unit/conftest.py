"""Servers in memory."""

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from projector.app import rebuild as rebuild_module
from projector.app import supervisor as supervisor_module
from projector.stream.codec import Codec
from tests.support.fixtures import Event
from tests.support.memory.scene import MemoryScene


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Shorten the daemon's pauses to one turn of the loop; returns the numbers of the growing pauses so far."""
    numbers: list[int] = []

    def pauses_s(**_: float) -> Iterator[float]:
        for number in count(1):
            numbers.append(number)
            yield 0

    monkeypatch.setattr(supervisor_module, "_STANDBY_POLL_S", 0)
    monkeypatch.setattr(supervisor_module, "_PAUSE_AFTER_PROGRESS_S", 0)
    monkeypatch.setattr(supervisor_module, "growing_pauses_s", pauses_s)
    monkeypatch.setattr(rebuild_module, "growing_pauses_s", pauses_s)
    return numbers


@pytest.fixture
async def scene(codec: Codec, event: Event, pauses: list[int]) -> AsyncIterator[MemoryScene]:
    """A stream and a database; the daemons that a test starts between them end with it."""
    del pauses  # are made short
    scene = MemoryScene(codec, event)
    yield scene
    for daemon in scene.daemons:
        await daemon.abandon()
