"""The path of every message: decode, load, fold, save, park, advance.

The daemon, a rebuild and a retry differ only in where messages come from and in which tables they write.
`pipeline` overlaps the steps of consecutive batches.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from projector.app.decoding import chunks, decode, narrowed
from projector.app.ports import Decoder, Rows, Transactions, UnitOfWork
from projector.app.stages import Seconds, added, timed
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.endpoint import TOUCHED_FACETS, Change, Endpoint, FacetSet, fold
from projector.domain.events import Event
from projector.domain.facets import Verdict
from projector.domain.messages import DeadLetter, Delivery, Message
from projector.domain.shards import Shard, Share
from projector.errors import DatabaseRefusedError, PoisonError, RowsChangedError

_SKIPPED_TYPES_COUNTED = 200
_OTHER_TYPES = "(other)"
_SAMPLE = 100

Verdicts = Mapping[tuple[type[Any], Verdict], int]
"""Number of events by type and verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Messages in stream order, decoded without the state of any endpoint."""

    position: int
    """Everything up to this position is done once the batch is committed."""
    messages: Sequence[Message] = ()
    events: Sequence[Event] = ()
    dead_letters: Sequence[DeadLetter] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Messages of unknown types, by type."""
    duplicates: int = 0
    """Messages that were left out because they were already folded."""
    delivery: Delivery | None = None
    """What to acknowledge after the commit."""
    seconds: Seconds = field(default_factory=dict)
    """Durations of the stages up to decoding."""

    @property
    def anchor(self) -> Anchor | None:
        """Identifies the last message; None if there is none."""
        return Anchor.of(self.messages[-1]) if self.messages else None

    @property
    def needed(self) -> dict[str, FacetSet]:
        """The endpoints that the events name, and the facets of each that they may change."""
        return _needed(self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedBatch:
    """A batch, and the new state of the endpoints that it names."""

    batch: Batch
    endpoints: Mapping[str, Endpoint]
    verdicts: Verdicts
    changes: Sequence[Change]
    """What each event did; empty if changes are not logged."""
    seconds: Seconds
    """Durations of the stages up to folding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a committed batch."""

    messages: int
    """Number of messages folded, skipped or parked."""
    verdicts: Verdicts
    skipped: Mapping[str, int]
    """Messages of unknown types, by type."""
    dead_letters: Sequence[DeadLetter]
    duplicates: int
    """Messages that were already folded."""
    seconds: Seconds
    """Durations of the stages."""
    refolded: bool = False
    """Whether the batch was folded again, which invalidates what was folded on top of it."""
    named: int = 0
    """How often the events name an endpoint."""
    endpoints: int = 0
    """How many endpoints they name."""
    registers: int = 0
    """About how many registers these hold, each endpoint counted as one more."""

    @property
    def events(self) -> int:
        """Number of events folded, with any verdict."""
        return sum(self.verdicts.values())

    def __add__(self, other: "Outcome") -> "Outcome":
        """Return the outcome of two parts of a batch."""
        return Outcome(
            messages=self.messages + other.messages,
            verdicts=Counter(self.verdicts) + Counter(other.verdicts),
            skipped=Counter(self.skipped) + Counter(other.skipped),
            dead_letters=(*self.dead_letters, *other.dead_letters),
            duplicates=self.duplicates + other.duplicates,
            seconds=added(self.seconds, other.seconds),
            refolded=self.refolded or other.refolded,
            named=self.named + other.named,
            endpoints=self.endpoints + other.endpoints,
            registers=self.registers + other.registers,
        )


class Projection:
    """Folds batches from a checkpoint on, each in one transaction that moves the checkpoint."""

    def __init__(  # noqa: PLR0913 - each is a part
        self,
        decoder: Decoder,
        transactions: Transactions,
        checkpoint: Checkpoint,
        *,
        share: Share | None = None,
        shards: int = 1,
        logs_changes: bool = False,
    ) -> None:
        """Continue from a checkpoint; without a share, everything is folded.

        `shards` is how many shards the endpoints that are folded here belong to.
        """
        self._decoder = decoder
        self._share = share
        self._shards = shards
        self._transactions = transactions
        self._logs_changes = logs_changes
        self.checkpoint = checkpoint
        self.committing = False
        """Whether a transaction is in progress, which should be allowed to finish."""

    async def decode(
        self, messages: Sequence[Message], *, delivery: Delivery | None = None, seconds: Seconds | None = None
    ) -> Batch:
        """Decode at least one message; one that cannot be decoded becomes a dead letter.

        `delivery` is what to acknowledge; `seconds` holds the durations of earlier stages.
        """
        decoding = Seconds()
        with timed(decoding, "decode"):
            decoded = await decode(self._decoder, messages, self._share)
        return Batch(
            position=messages[-1].position,
            messages=messages,
            events=decoded.events,
            dead_letters=decoded.dead_letters,
            skipped=decoded.skipped,
            delivery=delivery,
            seconds=added(seconds or {}, decoding),
        )

    async def fold_ahead(self, batch: Batch, rows: Rows, previous: FoldedBatch | None) -> FoldedBatch:
        """Fold a batch on top of the previous one, which may be uncommitted.

        Raises:
            TransientError, FatalError: from loading.
        """
        position = self.checkpoint.position if previous is None else previous.batch.position
        batch = await self._without_duplicates(batch, position)
        loading = Seconds()
        with timed(loading, "load"):
            endpoints = await rows.load(batch.needed, {} if previous is None else previous.endpoints)
        return await self._fold(batch, endpoints, loading)

    async def process(self, batch: Batch, ahead: FoldedBatch | None = None) -> Outcome:
        """Commit a batch; messages that can never be folded are parked.

        `ahead` is the batch folded on top of the present checkpoint. Without it, or if rows have changed since,
        the batch is folded within the transaction.

        Raises:
            TransientError: nothing was committed, or the outcome of the commit is unknown;
                the checkpoint has to be read again before continuing.
            FatalError: nothing was committed.
        """
        self.committing = True
        try:
            return await self._process(batch, ahead)
        finally:
            self.committing = False

    async def _process(self, batch: Batch, ahead: FoldedBatch | None = None) -> Outcome:
        try:
            return await self._commit(batch, ahead)
        except RowsChangedError as error:
            self.checkpoint = replace(self.checkpoint, generation=error.generation)
            return replace(await self._process(batch), refolded=True)
        except PoisonError as error:
            return replace(await self._isolate(batch, error), refolded=True)

    async def _commit(self, batch: Batch, ahead: FoldedBatch | None) -> Outcome:
        committing = Seconds()
        with timed(committing, "commit"):
            async with self._transactions.transaction() as work:
                await work.hold(self.checkpoint)
                folded = ahead or await self._fold_within(work, batch)
                after = await self._write(work, folded, committing)
        self.checkpoint = after
        return Outcome(
            messages=len(folded.batch.messages),
            verdicts=folded.verdicts,
            skipped=folded.batch.skipped,
            dead_letters=folded.batch.dead_letters,
            duplicates=folded.batch.duplicates,
            seconds=added(folded.seconds, committing),
            named=sum(len(event.endpoint_ids) for event in folded.batch.events),
            endpoints=len(folded.endpoints),
            registers=_count_registers(folded.endpoints),
        )

    async def _fold_within(self, work: UnitOfWork, batch: Batch) -> FoldedBatch:
        batch = await self._without_duplicates(batch, self.checkpoint.position)
        loading = Seconds()
        with timed(loading, "load"):
            endpoints = await work.load(batch.needed)
        return await self._fold(batch, endpoints, loading)

    async def _fold(self, batch: Batch, endpoints: Mapping[str, Endpoint], seconds: Seconds) -> FoldedBatch:
        verdicts: Counter[tuple[type[Any], Verdict]] = Counter()
        changes: list[Change] = []
        folding = Seconds()
        with timed(folding, "fold"):
            for chunk in chunks(batch.events):
                verdicts += fold(chunk, endpoints, changes if self._logs_changes else None)
                await asyncio.sleep(0)
        return FoldedBatch(
            batch=batch,
            endpoints=endpoints,
            verdicts=verdicts,
            changes=changes,
            seconds=added(added(batch.seconds, seconds), folding),
        )

    async def _write(self, work: UnitOfWork, folded: FoldedBatch, seconds: Seconds) -> Checkpoint:
        """Write everything that a batch changes, and return the checkpoint after it."""
        batch, before = folded.batch, self.checkpoint
        if batch.position <= before.position:
            return before
        after = _advanced(before, batch)
        with timed(seconds, "save"):
            await work.save(folded.endpoints)
            if folded.changes:
                await work.log(folded.changes, {message.position: message for message in batch.messages})
        if batch.dead_letters:
            await work.park(before.stream, batch.dead_letters)
        await work.advance(before, after)
        return after

    async def _without_duplicates(self, batch: Batch, position: int) -> Batch:
        """Return the part of a batch after a position.

        If a replica's clock has stepped back, stamps alone do not make a redelivery idempotent.
        """
        if not batch.messages or batch.messages[0].position > position:
            return batch
        new = [message for message in batch.messages if message.position > position]
        duplicates = batch.duplicates + len(batch.messages) - len(new)
        if not new:
            return replace(batch, messages=(), events=(), dead_letters=(), skipped={}, duplicates=duplicates)
        decoded = await self.decode(new, delivery=batch.delivery, seconds=batch.seconds)
        return replace(decoded, duplicates=duplicates)

    async def _isolate(self, batch: Batch, error: PoisonError) -> Outcome:
        """Halve a batch that Postgres rejects until the message at fault is alone, and park that message."""
        if len(batch.messages) == 1:
            if batch.dead_letters:
                raise DatabaseRefusedError(
                    f"Postgres rejects a dead letter: {error.detail}; check the constraints and triggers of dead_letter"
                ) from error
            # The row may have held the rejected value before: then the message is not at fault.
            async with self._transactions.transaction() as work:
                await work.check(batch.needed)
            culprit = DeadLetter(batch.messages[0], error.reason, error.detail)
            events = [] if self._shards == 1 else await self._accepted(batch.events)
            alone = Batch(position=batch.position, messages=batch.messages, events=events, dead_letters=(culprit,))
            return await self._process(alone)
        middle = len(batch.messages) // 2
        first = await self._process(await self.decode(batch.messages[:middle]))
        return first + await self._process(await self.decode(batch.messages[middle:]))

    async def _accepted(self, events: Sequence[Event]) -> list[Event]:
        """Return the events of a message about endpoints of the shards for which Postgres accepts them.

        A shard that folds on its own parks such a message for its own endpoints only; shards that are folded together
        must do the same.
        """
        accepted: list[Event] = []
        for number in range(self._shards):
            ours = list(narrowed(events, Shard(number, self._shards)))
            if ours and await self._would_be_accepted(ours):
                accepted += ours
        return accepted

    async def _would_be_accepted(self, events: Sequence[Event]) -> bool:
        try:
            async with self._transactions.transaction() as work:
                endpoints = await work.load(_needed(events))
                fold(events, endpoints)
                await work.save(endpoints)
                raise _Undone  # noqa: TRY301 - this is how a transaction is rolled back
        except PoisonError:
            return False
        except _Undone:
            return True


class _Undone(Exception):  # noqa: N818 - nothing is wrong
    """Rolls a transaction back."""


def _needed(events: Iterable[Event]) -> dict[str, FacetSet]:
    needed: dict[str, FacetSet] = {}
    for event in events:
        facets = TOUCHED_FACETS[type(event)]
        for endpoint_id in event.endpoint_ids:
            needed[endpoint_id] = needed.get(endpoint_id, 0) | facets
    return needed


def _count_registers(endpoints: Mapping[str, Endpoint]) -> int:
    """Return about how many registers endpoints hold, from a sample, since counting all is too slow."""
    sample = [1 + endpoint.registers for endpoint in islice(endpoints.values(), 0, None, 1 + len(endpoints) // _SAMPLE)]
    return len(endpoints) * sum(sample) // len(sample) if sample else 0


def _advanced(checkpoint: Checkpoint, batch: Batch) -> Checkpoint:
    """Return the checkpoint after a batch."""
    return replace(
        checkpoint,
        position=batch.position,
        anchor=batch.anchor,
        skipped=_count_skipped(checkpoint.skipped, batch.skipped) if batch.skipped else checkpoint.skipped,
    )


def _count_skipped(so_far: Mapping[str, int], more: Mapping[str, int]) -> Mapping[str, int]:
    """Add up the counts; a publisher that invents types must not make the checkpoint grow without bound."""
    total = dict(so_far)
    for kind, count in more.items():
        name = kind if kind in total or len(total) < _SKIPPED_TYPES_COUNTED else _OTHER_TYPES
        total[name] = total.get(name, 0) + count
    return total
