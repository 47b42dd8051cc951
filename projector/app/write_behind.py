"""A cache in front of the staging table: rows are kept in memory, and written when there are many.

A replay changes most endpoints many times, and nothing reads the staging table before it is complete.
With the cache, an endpoint costs one load and one save per flush instead of one per batch.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice

from projector.app.ports import Rows
from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import Change, Endpoint, FacetSet, missing
from projector.domain.messages import DeadLetter, Message
from projector.errors import HeldRowsRefusedError, PoisonError

_SAMPLE = 100
_SAVED_AT_ONCE = 10_000  # endpoints: their rows are in memory twice while they are sent
_REGISTER_BYTES = 200
_DEAD_LETTER_BYTES = 1000  # without the payload


class WriteBehindCache:
    """Buffers folded endpoints and dead letters in memory, and flushes when full.

    It implements `ports.Rows` and `ports.UnitOfWork` without transactions:
    the staging tables have no checkpoint, and an error ends the replay.
    Endpoints are folded in place, without copies, so `load` returns uncommitted ones too.
    """

    def __init__(self, rows: Rows, *, most_registers: int) -> None:
        """Keep up to `most_registers` registers, each about 200 bytes of memory; an endpoint counts as one more."""
        self._rows = rows
        self._most_registers = most_registers
        self._endpoints: dict[str, Endpoint] = {}
        self._dead_letters: list[DeadLetter] = []
        self._dead_letter_bytes = 0
        self._stream = ""
        self._registers_each = 0.0
        """The largest average number of registers per endpoint in any batch."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["WriteBehindCache"]:
        """Return the cache itself."""
        yield self

    async def load(
        self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint] | None = None
    ) -> dict[str, Endpoint]:
        """Return endpoints to fold, and keep them.

        Raises:
            HeldRowsRefusedError: see `flush`.
        """
        del uncommitted  # the cache holds the latest state of every endpoint that it keeps
        # Everything that was loaded before is folded by now, so it may be written and dropped.
        if self._is_full:
            await self.flush()
        for endpoint_id, loaded in (await self._rows.load(missing(needed, self._endpoints), {})).items():
            kept = self._endpoints.setdefault(endpoint_id, loaded)
            if kept is not loaded:
                kept.complete(loaded)
        return {endpoint_id: self._endpoints[endpoint_id] for endpoint_id in needed}

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Do nothing: no other process writes the staging tables."""

    async def check(self, needed: Mapping[str, FacetSet]) -> None:
        """Do nothing: Postgres rejects rows only at a `flush`, long after their messages."""

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Write nothing yet; sample the memory that the endpoints take, since counting all is too slow."""
        sample = [endpoint.registers for endpoint in islice(endpoints.values(), _SAMPLE)]
        if sample:
            self._registers_each = max(self._registers_each, sum(sample) / len(sample))

    async def log(self, changes: Sequence[Change], messages: Mapping[int, Message]) -> None:
        """Do nothing: the staging tables have no log."""

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        """Keep dead letters."""
        self._stream = stream
        self._dead_letters += dead_letters
        self._dead_letter_bytes += sum(len(letter.message.payload) + _DEAD_LETTER_BYTES for letter in dead_letters)

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Do nothing: the staging tables have no checkpoint."""

    async def flush(self) -> None:
        """Write and drop everything that is kept; endpoints that were loaded must not be folded afterwards.

        Raises:
            HeldRowsRefusedError: Postgres rejects a row.
        """
        dead_letters, self._dead_letters, self._dead_letter_bytes = self._dead_letters, [], 0
        endpoints = iter(self._endpoints.items())
        with _refusals():
            if dead_letters:
                async with self._rows.transaction() as work:
                    await work.park(self._stream, dead_letters)
            while some := dict(islice(endpoints, _SAVED_AT_ONCE)):
                async with self._rows.transaction() as work:
                    await work.save(some)
        self._endpoints.clear()
        self._registers_each = 0.0

    @property
    def _is_full(self) -> bool:
        used = len(self._endpoints) * (1 + self._registers_each) + self._dead_letter_bytes / _REGISTER_BYTES
        return used > self._most_registers


@contextmanager
def _refusals() -> Iterator[None]:
    """Keep a rejected row from being blamed on the current messages."""
    try:
        yield
    except PoisonError as error:
        raise HeldRowsRefusedError(str(error)) from error
