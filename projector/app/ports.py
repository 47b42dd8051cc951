"""What the application needs of the rooms below, so that it knows no driver."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import Endpoint, FacetSet
from projector.domain.events import Event
from projector.domain.messages import DeadLetter, Delivery, Message, Origin, Skipped, StreamState


class Decoder(Protocol):
    """Reads messages; implemented by `stream.codec.Codec`."""

    def decode(self, message: Message) -> Sequence[Event] | Skipped:
        """Return the events that a message states, or that its type is unknown; raises PoisonError."""
        ...

    def origin(self, message: Message) -> Origin | None:
        """Return where a message says it came from and when, or None if that cannot be read."""
        ...


Load: TypeAlias = Callable[[Mapping[str, FacetSet]], Awaitable[dict[str, Endpoint]]]
"""Returns endpoints to fold on, with at least the facets that are needed of each."""


class UnitOfWork(Protocol):
    """The verbs of one transaction; implemented by `storage.unit_of_work.UnitOfWork`."""

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Keep everybody else from folding; raises CheckpointMovedError, RowsChangedError, RulesChangedError."""
        ...

    async def load(self, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
        """Return working copies of endpoints."""
        ...

    async def check(self, needed: Mapping[str, FacetSet]) -> None:
        """Make sure that what is stored of endpoints could be written again; raises DamagedRowError."""
        ...

    async def save(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Write what changed."""
        ...

    async def park(self, stream: str, dead_letters: Collection[DeadLetter]) -> None:
        """Put messages aside with the reason."""
        ...

    async def advance(self, before: Checkpoint, after: Checkpoint) -> None:
        """Move the checkpoint; raises CheckpointMovedError."""
        ...


class Transactions(Protocol):
    """Whatever begins transactions; implemented by `storage.store.Store`."""

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin one: it commits at the end of the block and rolls back on any error."""
        ...


class Rows(Transactions, Protocol):
    """Transactions, and reading beside them."""

    @property
    def loads_uncommitted(self) -> bool:
        """Whether `load` returns what was folded last, committed or not, instead of copies of what is committed."""
        ...

    async def load(self, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
        """Return endpoints to fold on."""
        ...


class Store(Rows, Protocol):
    """The writer's side of the database; implemented by `storage.store.Store`."""

    async def open(self) -> None:
        """Connect, or connect anew."""
        ...

    async def close(self) -> None:
        """Disconnect at once."""
        ...

    async def lead(self) -> bool:
        """Try to become the one projector that works; it lasts as long as the connection."""
        ...

    def note_lag(self, messages: int) -> None:
        """Remember how many messages of ours are behind; it is written down now and then."""
        ...

    async def write_lag(self) -> None:
        """Write that down now, and since when this projector works."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether the database is waited for, which does not last for ever."""
        ...

    async def watch(self) -> None:
        """Keep the lead; this ends only by raising that it is lost."""
        ...

    async def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint, or None if nothing was ever folded."""
        ...

    async def begin(self, checkpoint: Checkpoint) -> None:
        """Write the first checkpoint."""
        ...


class Source(Protocol):
    """The stream in ordered batches; implemented by `stream.source.JetStreamSource`."""

    async def open(self) -> None:
        """Connect, or connect anew."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    async def state(self) -> StreamState:
        """Return what the stream holds now."""
        ...

    async def behind(self, position: int) -> int:
        """Return how many messages of ours the stream holds behind a position."""
        ...

    async def message(self, position: int) -> Message | None:
        """Return the message at a position, if the stream still has it."""
        ...

    async def position(self, after: int) -> int:
        """Go on behind a position; return how many messages of ours the stream holds there."""
        ...

    async def next(self, linger_s: float) -> Delivery | None:
        """Wait for messages and return them, or None where nothing came for about a second."""
        ...

    async def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that a delivery and all before it are done."""
        ...
