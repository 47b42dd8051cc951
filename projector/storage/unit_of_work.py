"""The transaction that changes rows, dead letters and checkpoint together."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import FACETS, Change, Endpoint, FacetSet
from projector.domain.messages import DeadLetter, Message
from projector.domain.shards import WHOLE, Shard
from projector.errors import (
    CheckpointMovedError,
    DamagedRowError,
    PoisonError,
    RowsChangedError,
    ShardsChangedError,
    one_line,
)
from projector.storage import change_log, checkpoints, statements
from projector.storage.checkpoints import Commit
from projector.storage.columns import FACET_COLUMNS
from projector.storage.connection import Connection
from projector.storage.dialect import Dialect
from projector.storage.failures import translate, translated
from projector.storage.loading import load
from projector.storage.text import escape, storable
from projector.storage.wire import encode_registers

W = TypeVar("W")

_WRITERS = tuple(
    (index, 1 << index, facet.values, (None,) * len(facet.all_columns)) for index, facet in enumerate(FACET_COLUMNS)
)


class UnitOfWork:
    """The operations of one transaction."""

    _table = "endpoint_state"
    _dead_letter_table = "dead_letter"

    def __init__(
        self, connection: Connection, dialect: Dialect, *, shard: Shard = WHOLE, logs_changes: bool = False
    ) -> None:
        """Use a connection with the codecs of `wire`, prepared for the dialect; only rows of `shard` change."""
        self._connection = connection
        self._dialect = dialect
        self._shard = shard
        self._logs_changes = logs_changes
        self._commit: Commit | None = None

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Lock the checkpoint.

        Raises:
            CheckpointMovedError, ShardsChangedError, RulesChangedError, RowsChangedError: see `errors`.
        """
        found, self._commit = await checkpoints.hold(self._connection, self._shard.number)
        if found is None or found.stream != checkpoint.stream or found.position != checkpoint.position:
            raise CheckpointMovedError(expected=checkpoint.position, found=None if found is None else found.position)
        if found.shard.of != self._shard.of:
            raise ShardsChangedError(expected=self._shard.of, found=found.shard.of)
        found.rules.check(checkpoint.rules)
        if found.generation != checkpoint.generation:
            await self._dialect.settle(self._connection)
            raise RowsChangedError(generation=found.generation)

    async def load(self, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
        """Return working copies of endpoints; see `loading.load`."""
        return await load(self._connection, self._dialect, self._table, needed)

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Write the facets that changed, and the latest event, of each endpoint."""
        part = self._dialect.next_part()
        rows = [_saved(part, *item) for item in endpoints.items()]
        await self._dialect.save(self._connection, self._table, part, rows)

    async def check(self, needed: Mapping[str, FacetSet]) -> None:
        """Check that stored facets could be written again; raises DamagedRowError.

        Registers that were changed by hand may be readable but hold a time that no column can store.
        """
        endpoints = await self.load(needed)
        for endpoint_id, endpoint in endpoints.items():
            endpoint.changed = needed[endpoint_id]
        if await self._unwritable(endpoints) is None:
            return
        for endpoint_id, endpoint in endpoints.items():
            for index, facet in enumerate(FACETS):
                endpoint.changed = needed[endpoint_id] & 1 << index
                error = await self._unwritable({endpoint_id: endpoint})
                if error is not None:
                    raise DamagedRowError(endpoint_id, facet.name, one_line(error)) from error

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        """Write dead letters; for one that is already parked, count one more attempt."""
        await self._connection.executemany(
            statements.park(self._dead_letter_table), [_parked(stream, letter) for letter in dead_letters]
        )

    async def log(self, changes: Sequence[Change], messages: Mapping[int, Message]) -> None:
        """Write what was done to each facet; `messages` are those of the changes, by position."""
        await change_log.write(self._connection, await self._this_commit(), changes, messages)

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Move the checkpoint by compare-and-set; raises CheckpointMovedError."""
        commit = await self._this_commit()
        if not await checkpoints.advance(self._connection, before, after, commit, logged=self._logs_changes):
            raise CheckpointMovedError(expected=before.position, found=None)

    async def _this_commit(self) -> Commit:
        """Return what the transaction will be; this locks the checkpoint unless `hold` has."""
        if self._commit is None:
            _, self._commit = await checkpoints.hold(self._connection, self._shard.number)
        return self._commit

    async def _unwritable(self, endpoints: Mapping[str, Endpoint]) -> Exception | None:
        """Write endpoints, roll back, and return the error if their values cause one."""
        savepoint = self._connection.transaction()
        await savepoint.start()
        try:
            await self.save(endpoints)
        except (asyncpg.DataError, OverflowError) as error:
            return error
        except asyncpg.PostgresError as error:
            if isinstance(translate(error), PoisonError):
                return None  # a constraint or trigger added by a user rejects the change
            raise
        finally:
            await savepoint.rollback()
        return None


@asynccontextmanager
async def transaction(connection: Connection, work: Callable[[Connection], W]) -> AsyncIterator[W]:
    """Begin a transaction that commits at the end of the block and rolls back on any error.

    Within another transaction on the same connection it is a savepoint.
    DatabaseUnavailableError means that it may have committed, PoisonError that Postgres rejects a value.
    """
    with translated():
        async with connection.transaction():
            yield work(connection)


def _parked(stream: str, dead_letter: DeadLetter) -> Sequence[Any]:
    """Return the arguments of `statements.park`."""
    (position, stored_at, subject, payload, headers), reason, detail = dead_letter
    storable_headers = headers and {storable(name): storable(value) for name, value in headers.items()}
    return stream, position, escape(subject), storable_headers, payload, stored_at, reason, storable(detail)


def _saved(part: int, endpoint_id: str, endpoint: Endpoint) -> Sequence[Any]:
    """Return a row for `statements.SAVED_COLUMNS`."""
    row: list[Any] = [part, endpoint_id, endpoint.last_event_seq, endpoint.last_event_at]
    states, changed = endpoint.states, endpoint.changed
    for index, bit, values, unchanged in _WRITERS:
        if changed & bit:
            state = states[index]
            row += values(state)
            row.append(encode_registers(state))
        else:
            row += unchanged
    return row
