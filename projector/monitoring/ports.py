"""What monitoring needs from storage and stream; it knows no driver."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from projector.app.status import StreamStats
from projector.domain.summary import Slice, Summary


class Pages(Protocol):
    """The pages of the table."""

    async def pages(self) -> int:
        """Return the number of pages."""
        ...

    async def count(self, first: int, end: int) -> Slice | None:
        """Count the endpoints on the pages from `first` to before `end`; None: the query timed out."""
        ...


class Database(Pages, Protocol):
    """Read access to the tables; implemented by `storage.probe.Probe`."""

    async def open(self) -> None:
        """Connect, or reconnect."""
        ...

    async def close(self) -> None:
        """Disconnect at once."""
        ...

    async def summary(self) -> Summary:
        """Return the state of the projection."""
        ...

    async def latest_dead_letters(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the dead letters that are neither resolved nor discarded, newest first."""
        ...


class OpenStats(Protocol):
    """Opens a connection to the stream."""

    def __call__(self) -> AbstractAsyncContextManager[StreamStats]:
        """Return a context manager that connects and disconnects."""
        ...
