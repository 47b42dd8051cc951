"""Retries of dead letters in memory: the port `RetryStore`."""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import DeadLetter, Message, Selection
from projector.errors import CheckpointMovedError, DatabaseUnavailableError, NoDeadLetterError, RetryTooEarlyError
from tests.support.memory.connections import Connection
from tests.support.memory.database import MemoryDatabase
from tests.support.memory.unit_of_work import MemoryUnitOfWork


class MemoryRetryStore:
    """The port `RetryStore`."""

    def __init__(self, database: MemoryDatabase, stream: str) -> None:
        self._database = database
        self._stream = stream
        self._connection = Connection(DatabaseUnavailableError)

    async def open(self) -> None:
        self._connection = await self._database.connections.connect()

    async def close(self) -> None:
        self._database.connections.disconnect(self._connection)

    async def count_shards(self) -> int:
        await self._connection.turn()
        return 1

    async def positions(self, selection: Selection) -> list[int]:
        await self._connection.turn()
        return sorted(
            position
            for (stream, position), known in self._database.live.dead_letters.items()
            if stream == self._stream
            and known.state == "parked"
            and (not selection.positions or position in selection.positions)
            and selection.reason in (None, known.letter.reason)
        )

    async def message(self, position: int) -> Message:
        await self._connection.turn()
        known = self._database.live.dead_letters.get((self._stream, position))
        if known is None:
            raise NoDeadLetterError(position)
        return known.letter.message

    def transaction(self) -> AbstractAsyncContextManager[MemoryUnitOfWork]:
        work = _RetryUnitOfWork(self._database, self._connection, self._database.live)
        return self._database.transaction(self._connection, work)


class _RetryUnitOfWork(MemoryUnitOfWork):
    """The same operations for a single message before the checkpoint."""

    _parked_again = False

    async def hold(self, checkpoint: Checkpoint) -> None:
        await self._lock.take()
        found = self._database.checkpoint
        if found is None or found.stream != checkpoint.stream:
            raise CheckpointMovedError(expected=checkpoint.position, found=None)
        found.rules.check(checkpoint.rules)
        if found.position <= checkpoint.position:
            raise RetryTooEarlyError(position=checkpoint.position + 1, folded=found.position)

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        await super().park(stream, dead_letters)
        self._parked_again = True

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Resolve the dead letter unless it was parked again."""
        await self._connection.turn()
        if self._parked_again:
            return
        key = before.stream, after.position
        known, found = self._draft.dead_letters.get(key), self._database.checkpoint
        if known is not None:
            self._draft.dead_letters[key] = replace(known, state="resolved", attempts=known.attempts + 1)
        if found is not None:
            self._moved = replace(found, generation=found.generation + 1)
