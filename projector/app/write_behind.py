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
_SAVED_AT_ONCE = 10_000  # endpoints: their rows are in memory twice while they are sent


class WriteBehind:
    """Takes the place of the rows it writes to, for one projection (`app.ports.Rows`).

    Endpoints are folded on where they are held.
    What a batch has made of them cannot be taken back, so that any error ends the replay.
    """

    loads_uncommitted = True

    def __init__(self, rows: Rows, *, most_registers: int) -> None:
        """Hold back so many registers: about 200 bytes of memory each."""
        self._rows = rows
        self._most_registers = most_registers
        self._held: dict[str, Endpoint] = {}
        self._registers_each = 0.0
        """How many an endpoint holds on average, in that batch of those held where it was most."""

    @property
    def is_full(self) -> bool:
        """Whether it is time to `flush`."""
        return len(self._held) * self._registers_each > self._most_registers

    async def load(self, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
        """Return endpoints, those that are held or else from the table, and hold them from now on."""
        endpoints = await load_known(needed, self._rows.load, self._held, copy=False)
        self._held.update(endpoints)
        return endpoints

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Begin a transaction whose rows are written later.

        Raises:
            HeldRowsRefusedError: Postgres objects to something else.
        """
        with _refusals():
            async with self._rows.transaction() as work:
                yield _Deferred(work, self)

    async def flush(self) -> None:
        """Write what is held, and let go of it; nothing may be under way that was loaded.

        Raises:
            HeldRowsRefusedError: Postgres objects to some row.
        """
        held = iter(self._held.items())
        with _refusals():
            while some := dict(islice(held, _SAVED_AT_ONCE)):
                async with self._rows.transaction() as work:
                    await work.save(some)
        self._held.clear()
        self._registers_each = 0.0

    def measure(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Take note of how much of memory some of those that are held take: to count all would cost too much."""
        sample = [endpoint.registers for endpoint in islice(endpoints.values(), _SAMPLE)]
        if sample:
            self._registers_each = max(self._registers_each, sum(sample) / len(sample))


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
        """Return endpoints to fold on."""
        return await self._behind.load(needed)

    async def check(self, needed: Mapping[str, FacetSet]) -> None:
        """Make sure that what is stored could be written again."""
        await self._work.check(needed)

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Write nothing: what changed is held."""
        self._behind.measure(endpoints)

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        """Put messages aside with the reason."""
        await self._work.park(stream, dead_letters)

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Move the checkpoint."""
        await self._work.advance(before, after)
