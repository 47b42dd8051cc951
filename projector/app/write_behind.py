"""Rows of a table that nobody reads yet: what is folded stays in memory, and is written when it has become much.

A rebuild comes to most endpoints again and again.
Written behind, each costs a load and a save once in a while instead of once in every batch.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import islice

from projector.app.ports import Rows, UnitOfWork
from projector.app.projection import load_known
from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import Endpoint, FacetSet
from projector.domain.messages import DeadLetter
from projector.errors import HeldRowsRefusedError, PoisonError

_SAMPLE = 100


class WriteBehind:
    """Takes the place of the rows it writes to, for one projection (`app.ports.Rows`)."""

    def __init__(self, rows: Rows, *, most_registers: int) -> None:
        """Hold back so many registers: about 200 bytes of memory each."""
        self._rows = rows
        self._most_registers = most_registers
        self._held: dict[str, Endpoint] = {}
        self._registers_each = 0.0
        """How many an endpoint holds on average, in that batch of those held where it was most."""

    async def load(self, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
        """Return working copies of endpoints, from what is held or from the table."""
        return await load_known(needed, self._rows.load, self._held)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Begin a transaction whose rows may be written in a later one.

        Raises:
            HeldRowsRefusedError: Postgres objects to some row.
        """
        with _refusals():
            async with self._rows.transaction() as work:
                yield _Deferred(work, self)
                much = len(self._held) * self._registers_each > self._most_registers
                if much:
                    await work.save(self._held)
        if much:
            self._forget()

    async def flush(self) -> None:
        """Write what is held.

        Raises:
            HeldRowsRefusedError: Postgres objects to some row.
        """
        with _refusals():
            async with self._rows.transaction() as work:
                await work.save(self._held)
        self._forget()

    def hold(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Keep what changed for later."""
        held = self._held
        for endpoint_id, endpoint in endpoints.items():
            before = held.get(endpoint_id)
            if before is not None:
                endpoint.changed |= before.changed
            held[endpoint_id] = endpoint
        sample = [endpoint.registers for endpoint in islice(endpoints.values(), _SAMPLE)]
        if sample:  # to count all of them would cost as much as to fold them
            self._registers_each = max(self._registers_each, sum(sample) / len(sample))

    def _forget(self) -> None:
        """Let go of what is held; not before it is committed, since the next batch is loaded meanwhile."""
        self._held.clear()
        self._registers_each = 0.0


@contextmanager
def _refusals() -> Iterator[None]:
    """Keep what Postgres objects to from being taken for a fault of the messages in hand."""
    try:
        yield
    except PoisonError as error:
        raise HeldRowsRefusedError(str(error)) from error


class _Deferred:
    """The verbs of a transaction on the rows, but for reading and writing endpoints."""

    def __init__(self, work: UnitOfWork, behind: WriteBehind) -> None:
        self._work = work
        self._behind = behind

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Keep everybody else from folding."""
        await self._work.hold(checkpoint)

    async def load(self, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
        """Return working copies of endpoints."""
        return await self._behind.load(needed)

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Hold back what changed."""
        self._behind.hold(endpoints)

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        """Put messages aside with the reason."""
        await self._work.park(stream, dead_letters)

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Move the checkpoint."""
        await self._work.advance(before, after)
