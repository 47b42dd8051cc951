"""The path of every message: decode, load, fold, save, park, advance.

The daemon, a rebuild and a retry differ only in where messages come from and in which tables they write.
`pipeline` overlaps the steps of consecutive batches.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from projector.app.ports import Decoder, Rows, Transactions, UnitOfWork
from projector.app.stages import Seconds, added, timed
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.endpoint import TOUCHED_FACETS, Change, Endpoint, FacetSet, fold
from projector.domain.events import Event
from projector.domain.facets import Verdict
from projector.domain.messages import DeadLetter, Delivery, Message, Skipped
from projector.errors import DatabaseRefusedError, PoisonError, RowsChangedError

T = TypeVar("T")

_SKIPPED_TYPES_COUNTED = 200
_OTHER_TYPES = "(other)"
_YIELD_EVERY = 100
"""Yield to the event loop after this many messages or events, so that Postgres never waits long for a statement."""

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
        needed: dict[str, FacetSet] = {}
        for event in self.events:
            facets = TOUCHED_FACETS[type(event)]
            for endpoint_id in event.endpoint_ids:
                needed[endpoint_id] = needed.get(endpoint_id, 0) | facets
        return needed


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
        )


class Projection:
    """Folds batches from a checkpoint on, each in one transaction that moves the checkpoint."""

    def __init__(
        self, decoder: Decoder, transactions: Transactions, checkpoint: Checkpoint, *, logs_changes: bool = False
    ) -> None:
        """Continue from a checkpoint."""
        self._decoder = decoder
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
        events: list[Event] = []
        dead_letters: list[DeadLetter] = []
        skipped: Counter[str] = Counter()
        decode, decoding = self._decoder.decode, Seconds()
        with timed(decoding, "decode"):
            for chunk in _chunks(messages):
                for message in chunk:
                    try:
                        decoded = decode(message)
                    except PoisonError as error:
                        dead_letters.append(DeadLetter(message, error.reason, error.detail))
                        continue
                    if isinstance(decoded, Skipped):
                        skipped[decoded.type] += 1
                    else:
                        events += decoded
                await asyncio.sleep(0)
        return Batch(
            position=messages[-1].position,
            messages=messages,
            events=events,
            dead_letters=dead_letters,
            skipped=skipped,
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
            for chunk in _chunks(batch.events):
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
            return await self._process(Batch(position=batch.position, messages=batch.messages, dead_letters=(culprit,)))
        middle = len(batch.messages) // 2
        first = await self._process(await self.decode(batch.messages[:middle]))
        return first + await self._process(await self.decode(batch.messages[middle:]))


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _YIELD_EVERY):
        yield items[start : start + _YIELD_EVERY]


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
