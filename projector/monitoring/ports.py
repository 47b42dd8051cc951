"""What monitoring needs from storage and stream; it knows no driver."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from projector.app.explain import Records
from projector.app.explanation import Names
from projector.app.status import StreamStats
from projector.domain.lookup import ChangeCursor, Found, Json, LogState, SearchedLetters, SessionCursor
from projector.domain.summary import Slice, Summary


class Pages(Protocol):
    """The pages of the table."""

    async def pages(self) -> int:
        """Return the number of pages."""
        ...

    async def count(self, first: int, end: int) -> Slice | None:
        """Count the endpoints on the pages from `first` up to, but not including, `end`; None: the query timed out."""
        ...


class Database(Pages, Protocol):
    """Read access to the tables; implemented by `queries.probe.Probe`."""

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


class Endpoints(Protocol):
    """Read access to single endpoints, one call at a time; implemented by `queries.endpoints.EndpointReader`."""

    async def search(self, prefix: str, after: str, limit: int) -> Found[str]:
        """Return endpoints whose id begins with a prefix and comes after an id, in the order of bytes."""
        ...

    async def state(self, endpoint_id: str) -> Json | None:
        """Return the visible columns, and since when changes have been recorded; None: no such endpoint."""
        ...

    async def sessions(
        self, endpoint_id: str, before: SessionCursor | None, limit: int
    ) -> tuple[LogState, Found[SessionCursor]]:
        """Return sessions, the latest first."""
        ...

    async def changes(
        self, endpoint_id: str, before: ChangeCursor | None, limit: int
    ) -> tuple[LogState, Found[ChangeCursor]]:
        """Return changes, the latest first."""
        ...

    async def count_shown(self, endpoint_id: str, before: ChangeCursor) -> int:
        """Return how many changes of the same time as the cursor are on the pages before it."""
        ...

    def records(self) -> AbstractAsyncContextManager[Records]:
        """Return a context manager that yields what explains an endpoint."""
        ...

    async def dead_letters(self, endpoint_id: str, before: int | None, limit: int) -> SearchedLetters:
        """Return dead letters in any state whose payload has the id, the newest first."""
        ...

    def close(self) -> None:
        """Disconnect at once."""
        ...


class OpenStats(Protocol):
    """Opens a connection to the stream."""

    def __call__(self) -> AbstractAsyncContextManager[StreamStats]:
        """Return a context manager that connects and disconnects."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """What monitoring reads from."""

    open_stats: OpenStats
    database: Database
    endpoints: Endpoints
    names_in: Callable[[str], Names]
    """Returns the names of the events of a revision."""
