"""Dead letters: listed, retried and discarded, but never deleted."""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select, update

from projector.domain.checkpoint import Checkpoint
from projector.domain.dead_letters import ListedDeadLetter, StoredDeadLetter
from projector.domain.messages import DeadLetter, Message, Selection
from projector.errors import CheckpointMovedError, NoDeadLetterError
from projector.storage import checkpoints, locks, migrate, statements
from projector.storage.connection import connect, disconnect, engine_connection
from projector.storage.failures import translated
from projector.storage.query import reading
from projector.storage.store import WRITER_SETTINGS
from projector.storage.tables import dead_letter
from projector.storage.text import unescape
from projector.storage.unit_of_work import UnitOfWork, transaction
from projector.storage.wire import decode_json, set_codecs

_FETCH = """
SELECT stored_at, subject, payload, headers FROM dead_letter WHERE stream = $1 AND position = $2
"""
_RESOLVE = """
UPDATE dead_letter SET state = 'resolved', closed_at = now(), attempts = attempts + 1
WHERE stream = $1 AND position = $2
"""
_columns = dead_letter.c


async def listed(url: str, stream: str) -> list[ListedDeadLetter]:
    """Return the dead letters that are neither resolved nor discarded, in stream order.

    Raises:
        NotMigratedError, DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    computed = {"payload_bytes": func.length(_columns.payload)}
    columns = [computed[name] if name in computed else _columns[name] for name in ListedDeadLetter._fields]
    async with reading(url) as connection:
        rows = await connection.execute(_of(select(*columns), stream, Selection()).order_by(_columns.position))
        return [ListedDeadLetter(*row) for row in rows]


async def shown(url: str, stream: str, position: int) -> StoredDeadLetter:
    """Return one dead letter, whatever its state.

    Raises:
        NoDeadLetterError: there is none at this position.
        NotMigratedError, DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    columns = [_columns[name] for name in StoredDeadLetter._fields]
    async with reading(url) as connection:
        row = (
            await connection.execute(select(*columns).where(_columns.stream == stream, _columns.position == position))
        ).one_or_none()
    if row is None:
        raise NoDeadLetterError(position)
    return StoredDeadLetter(*row)


async def discard(url: str, stream: str, selection: Selection, note: str) -> int:
    """Close dead letters that nobody will retry, with the reason; return how many.

    Raises:
        NoDeadLetterError: none is parked at one of the positions that were named; nothing happened.
        DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    async with engine_connection(url, purpose="dead letters") as connection, connection.begin():
        rows = await connection.execute(
            update(dead_letter)
            .where(_parked(stream, selection))
            .values(state="discarded", closed_at=func.now(), note=note)
            .returning(_columns.position)
        )
        closed = {row[0] for row in rows}
        for position in selection.positions:
            if position not in closed:
                raise NoDeadLetterError(position)
    return len(closed)


class Retry:
    """The end of the path for dead letters: rows change as live, and instead of the checkpoint their state does."""

    def __init__(self, url: str, stream: str) -> None:
        """Remember where the database is: nothing is opened yet."""
        self._url = url
        self._stream = stream
        self._connection: Any = None

    async def open(self) -> None:
        """Connect, and keep rebuilds out.

        Raises:
            RebuildRunningError: a rebuild is under way, and would not see what is changed now.
            NotMigratedError, DatabaseUnavailableError, DatabaseRefusedError: as their names say.
        """
        self._connection = await connect(self._url, purpose="retry", settings=WRITER_SETTINGS)
        with translated():
            await migrate.check(self._connection)
            await locks.keep_rebuilds_out(self._connection, shared=True)
            await set_codecs(self._connection)
            await self._connection.execute(statements.CREATE_CHANGES)

    async def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            await disconnect(self._connection)
            self._connection = None

    async def positions(self, selection: Selection) -> list[int]:
        """Return where the chosen dead letters are, in stream order."""
        async with reading(self._url) as connection:
            rows = await connection.execute(
                _of(select(_columns.position), self._stream, selection).order_by(_columns.position)
            )
            return [row[0] for row in rows]

    async def message(self, position: int) -> Message:
        """Return a dead letter's message as it was received.

        Raises:
            NoDeadLetterError: there is none at this position.
        """
        with translated():
            row = await self._connection.fetchrow(_FETCH, self._stream, position)
        if row is None:
            raise NoDeadLetterError(position)
        stored_at, subject, payload, headers = row
        return Message(
            position, stored_at, unescape(subject), payload, None if headers is None else decode_json(headers)
        )

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a transaction on `endpoint_state` that resolves one dead letter."""
        return transaction(self._connection, _RetryUnitOfWork)


class _RetryUnitOfWork(UnitOfWork):
    """The same verbs for a single message that the checkpoint has left behind."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._parked_again = False

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Lock the live checkpoint, which stays where it is."""
        found = await checkpoints.read(self._connection, hold=True)
        if found is None or found.stream != checkpoint.stream:
            raise CheckpointMovedError(expected=checkpoint.position, found=None)
        found.rules.check(checkpoint.rules)

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        """Count the attempt."""
        await super().park(stream, dead_letters)
        self._parked_again = True

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Resolve the dead letter unless it was parked again."""
        if not self._parked_again:
            await self._connection.execute(_RESOLVE, before.stream, after.position)
            await checkpoints.count_change(self._connection)


def _of(query: Select[Any], stream: str, selection: Selection) -> Select[Any]:
    return query.where(_parked(stream, selection))


def _parked(stream: str, selection: Selection) -> ColumnElement[bool]:
    chosen = [_columns.stream == stream, _columns.state == "parked"]
    if selection.positions:
        chosen.append(_columns.position.in_(selection.positions))
    if selection.reason is not None:
        chosen.append(_columns.reason == selection.reason)
    return and_(*chosen)
