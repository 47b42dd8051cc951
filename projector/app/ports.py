"""The application's interfaces to the stream and the database, free of drivers.

Each port but `Decoder` has two implementations: the real one, named in its docstring,
and one in memory, in `tests.support.memory`. `tests.conformance` holds both to the same cases.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from projector.domain.checkpoint import Checkpoint
from projector.domain.differences import Differences
from projector.domain.endpoint import Change, Endpoint, FacetSet
from projector.domain.events import Event
from projector.domain.messages import DeadLetter, Delivery, Message, Origin, Skipped, StreamState
from projector.domain.trimmed import Trimmed


class Decoder(Protocol):
    """Decodes messages; see `stream.codec.Codec`."""

    def decode(self, message: Message) -> Sequence[Event] | Skipped:
        """Return the events of a message, or that it is skipped because its type is unknown.

        Raises:
            PoisonError: the message can never be folded.
        """
        ...

    def glance(self, message: Message) -> bytes | None:
        """Return the id of the only endpoint that a message can name, in UTF-8; None if that takes decoding it."""
        ...

    def may_name(self, message: Message, endpoint_id: bytes) -> bool:
        """Return whether a message may name an endpoint, given its id in UTF-8; this is cheaper than decoding it."""
        ...

    def origin(self, message: Message) -> Origin | None:
        """Return the origin and the time that a message claims, or None if they cannot be read."""
        ...


class StreamView(Protocol):
    """What a stream holds; see `stream.view.StreamView`."""

    async def state(self) -> StreamState:
        """Return what the stream holds now."""
        ...

    async def deleted(self) -> frozenset[int]:
        """Return the positions between the first and the last message whose messages were deleted."""
        ...

    async def message(self, position: int) -> Message | None:
        """Return the message at a position, or None if the stream no longer holds it."""
        ...

    async def first_after(self, position: int) -> Message | None:
        """Return the first matching message after a position; None if there is none."""
        ...


class Consumer(Protocol):
    """Delivers messages in order; see `stream.consumers`."""

    async def seek(self, after: int) -> int:
        """Continue after a position; return how many matching messages follow it."""
        ...

    async def next(self, linger_s: float) -> Delivery | None:
        """Wait for messages and return them, or None if nothing arrives for about a second."""
        ...

    async def count_pending(self) -> int:
        """Return how many matching messages `next` has not returned yet."""
        ...

    async def discard(self) -> None:
        """Discard the consumer, so that the next `seek` of any client creates another one."""
        ...

    async def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge a delivery and everything before it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A stream over one connection; after an error, a new connection replaces both."""

    view: StreamView
    consumer: Consumer


class OpenSource(Protocol):
    """Opens a connection to the stream, as a context manager."""

    def __call__(self) -> AbstractAsyncContextManager[Source]:
        """Return the context manager."""
        ...


class UnitOfWork(Protocol):
    """The operations of one transaction; see `storage.unit_of_work.UnitOfWork`."""

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Lock the checkpoint; raises CheckpointMovedError, RowsChangedError, RulesChangedError."""
        ...

    async def load(self, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
        """Return working copies of endpoints."""
        ...

    async def check(self, needed: Mapping[str, FacetSet]) -> None:
        """Check that the stored facets of endpoints could be written again; raises DamagedRowError."""
        ...

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Write what changed."""
        ...

    async def log(self, changes: Sequence[Change], messages: Mapping[int, Message]) -> None:
        """Write what was done to each facet; `messages` are those of the changes, by position."""
        ...

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        """Write dead letters."""
        ...

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Move the checkpoint by compare-and-set; raises CheckpointMovedError."""
        ...


class Transactions(Protocol):
    """Begins transactions."""

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a transaction: it commits at the end of the block and rolls back on any error."""
        ...


class Rows(Transactions, Protocol):
    """A table of endpoints, readable outside its transactions."""

    async def load(self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """Return working copies of endpoints as if uncommitted ones were saved."""
        ...


class Store(Rows, Protocol):
    """The daemon's side of the database; see `storage.store.Store`."""

    async def open(self) -> None:
        """Connect, or reconnect."""
        ...

    async def close(self) -> None:
        """Disconnect at once; does nothing if not connected."""
        ...

    async def leave(self) -> None:
        """Disconnect, and wait until another store can lead; does nothing if not connected."""
        ...

    async def lead(self) -> bool:
        """Try to become the leader; the lead lasts as long as the connection."""
        ...

    def note_lag(self, messages: int) -> None:
        """Note how many matching messages are not folded; `watch` writes it."""
        ...

    async def write_lag(self) -> None:
        """Write the noted lag, and the time at which this daemon took the lead."""
        ...

    @property
    def logs_changes(self) -> bool:
        """Whether every commit writes its changes."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether a query is running."""
        ...

    async def watch(self) -> None:
        """Keep the lead; this ends only with an error, when the lead is lost."""
        ...

    async def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint, or None if nothing was ever folded."""
        ...

    async def begin(self, checkpoint: Checkpoint) -> None:
        """Write the first checkpoint, unless another daemon has written one."""
        ...


class FinalTransaction(Protocol):
    """The last transaction of a rebuild; see `storage.staging.FinalTransaction`."""

    @property
    def savepoints(self) -> Transactions:
        """Transactions on the staging tables, which are savepoints of this one."""
        ...

    async def hold(self) -> list[Checkpoint]:
        """Lock the live checkpoints, so that no daemon folds, and return them in the order of the shards."""
        ...

    async def differences(self, *, show: int, endpoint_id: str | None) -> Differences:
        """Compare the live table with what the stream implies."""
        ...

    async def apply(self, after: Sequence[Checkpoint], retried: Collection[int]) -> None:
        """Change the rows that differ, settle the dead letters at the positions `retried`, move the checkpoints."""
        ...


class Staging(Rows, Protocol):
    """The staging tables of a rebuild; see `storage.staging.Staging`."""

    @property
    def connected(self) -> bool:
        """Whether the staging tables are still those of this rebuild."""
        ...

    async def lead(self) -> bool:
        """Become the leader of every shard unless a daemon leads one; return whether it did."""
        ...

    async def checkpoints(self) -> list[Checkpoint]:
        """Return the live checkpoints, in the order of the shards; none if nothing was ever folded."""
        ...

    async def parked(self, stream: str) -> set[tuple[int, int]]:
        """Return position and stored time (Unix ms) of the parked dead letters."""
        ...

    async def seed(self, trimmed: Trimmed) -> None:
        """Copy the state of the live table that came from messages that have left the stream."""
        ...

    async def clear(self) -> None:
        """Empty the staging tables."""
        ...

    async def show(self, position: int, target: int) -> None:
        """Publish the progress of the replay."""
        ...

    async def compare(self) -> None:
        """Find the rows that may differ; endpoints that are saved later are compared in the final transaction."""
        ...

    def finish(self) -> AbstractAsyncContextManager[FinalTransaction]:
        """Begin the final transaction."""
        ...
