"""A database in memory: its rows, its leader, transactions, and faults of the server."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum
from typing import Protocol, TypeVar

from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import Change
from projector.domain.messages import Message
from projector.errors import DatabaseUnavailableError
from tests.support.memory.connections import Connection, Connections
from tests.support.memory.tables import Tables


class CommitFault(Enum):
    """Ways in which a commit can fail; all but the first lose the connection."""

    TIMED_OUT = "rolled back, and the connection is as good as before"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "committed, but the answer is lost"


class _Work(Protocol):
    """The uncommitted changes of a transaction."""

    def commit(self) -> None: ...

    def end(self) -> None: ...


W = TypeVar("W", bound=_Work)


class MemoryDatabase:
    """The rows, the leader, and the faults of the server."""

    def __init__(self) -> None:
        self.live = Tables()
        self.staging = Tables()
        self.checkpoint: Checkpoint | None = None
        self.changes: list[tuple[Change, Message]] = []
        """The log of changes, with the message behind each."""
        self.lag: int | None = None
        """As `Store.write_lag` wrote it."""
        self.leader: Connection | None = None
        self.lock = asyncio.Lock()
        """Of the checkpoint's row."""
        self.connections = Connections(DatabaseUnavailableError)
        self.commit_faults: deque[CommitFault | None] = deque()
        """The faults of the next commits; None: the commit succeeds."""
        self.refused: set[str] = set()
        """Endpoints whose rows cannot be written."""
        self.damaged: set[str] = set()
        """Endpoints whose rows hold what cannot be written."""
        self.takes_dead_letters = True

    async def endpoints(self) -> dict[str, int]:
        """Return the rows: by endpoint, the position of its latest event."""
        return {endpoint_id: row.last_event_seq for endpoint_id, row in sorted(self.live.endpoints.items())}

    async def dead_letters(self) -> list[tuple[int, str, int]]:
        """Return position, state and attempts of the dead letters."""
        stored = sorted(self.live.dead_letters.items())
        return [(position, parked.state, parked.attempts) for (_, position), parked in stored]

    async def logged_positions(self, endpoint_id: str) -> list[int]:
        """Return the positions of the changes of an endpoint in the log."""
        return sorted(message.position for change, message in self.changes if change.endpoint_id == endpoint_id)

    async def written_lag(self) -> int | None:
        return self.lag

    async def discard(self, position: int) -> None:
        """Discard the dead letters at a position."""
        for key, parked in self.live.dead_letters.items():
            if key[1] == position:
                self.live.dead_letters[key] = replace(parked, state="discarded")

    async def refuse(self, endpoint_id: str) -> None:
        """Reject the rows of an endpoint from now on."""
        self.refused.add(endpoint_id)

    async def lose_connections(self) -> None:
        self.connections.lose()

    def lead(self, connection: Connection) -> bool:
        """Make a connection the leader's unless another one is."""
        if self.leader is None or self.leader.lost.is_set():
            self.leader = connection
        return self.leader is connection

    @asynccontextmanager
    async def transaction(self, connection: Connection, work: W) -> AsyncIterator[W]:
        """Commit at the end of the block; an error needs no rollback, since nothing was written."""
        try:
            yield work
            await connection.turn()
            fault = self.commit_faults.popleft() if self.commit_faults else None
            if fault in (None, CommitFault.UNKNOWN):
                work.commit()
            if fault is not None:
                if fault is not CommitFault.TIMED_OUT:
                    self.connections.disconnect(connection)
                raise DatabaseUnavailableError(fault.value)
        finally:
            work.end()


@asynccontextmanager
async def savepoint(work: W) -> AsyncIterator[W]:
    """Begin a savepoint, which an error rolls back on its own."""
    try:
        yield work
        work.commit()
    finally:
        work.end()


class CheckpointLock:
    """The lock of the checkpoint's row, which a transaction keeps until it ends."""

    def __init__(self, database: MemoryDatabase, connection: Connection) -> None:
        self._lock = database.lock
        self._connection = connection
        self._taken = False

    async def take(self) -> None:
        await self._connection.turn()
        if not self._taken:
            await self._lock.acquire()
            self._taken = True
            await self._connection.turn()

    def release(self) -> None:
        if self._taken:
            self._lock.release()
