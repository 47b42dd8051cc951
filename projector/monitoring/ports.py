"""What the monitoring needs of the rooms below, so that it knows no driver."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from projector.app.status import StreamStats
from projector.domain.summary import Slice, Summary


class Pages(Protocol):
    """The table in pages, to be counted slice by slice."""

    async def pages(self) -> int:
        """Return how many there are."""
        ...

    async def count(self, first: int, end: int) -> Slice | None:
        """Count the endpoints on the pages from `first` up to, and without, `end`; None: that took too long."""
        ...


class Database(Pages, Protocol):
    """The tables, for who only looks; implemented by `storage.probe.Probe`."""

    async def open(self) -> None:
        """Connect, or connect anew."""
        ...

    async def close(self) -> None:
        """Disconnect at once."""
        ...

    async def summary(self) -> Summary:
        """Return how far the projection is."""
        ...

    async def latest_dead_letters(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the dead letters that wait for somebody, the newest first."""
        ...


class OpenStats(Protocol):
    """Connects to the stream for the length of a block."""

    def __call__(self) -> AbstractAsyncContextManager[StreamStats]:
        """Return the block."""
        ...
