"""The one path: decode all, load the endpoints once, fold message by message, save, park, advance.

Live, rebuild and retry differ only in where the messages come from and which transactions they end in.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from projector.app.ports import Decoder, Transactions
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.endpoint import TOUCHED_FACETS, FacetSet, fold
from projector.domain.events import Event
from projector.domain.facets import Verdict
from projector.domain.messages import DeadLetter, Message, Skipped
from projector.errors import PoisonError

_SKIPPED_TYPES_COUNTED = 200
_OTHER_TYPES = "(other)"


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in stream order, and all that could be read from them without knowing any endpoint."""

    messages: Sequence[Message]
    events: Sequence[Event]
    dead_letters: Sequence[DeadLetter]
    skipped: Mapping[str, int]

    @property
    def needed(self) -> dict[str, FacetSet]:
        """The endpoints that the events name, and which facets of each they may change."""
        needed: dict[str, FacetSet] = {}
        for event in self.events:
            facets = TOUCHED_FACETS[type(event)]
            for endpoint_id in event.endpoint_ids:
                needed[endpoint_id] = needed.get(endpoint_id, 0) | facets
        return needed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a batch once it was committed."""

    verdicts: Mapping[tuple[type[Any], Verdict], int]
    dead_letters: Sequence[DeadLetter] = ()


class Projection:
    """Folds batches from a checkpoint on, each in one transaction that moves the checkpoint."""

    def __init__(self, decoder: Decoder, transactions: Transactions, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self._decoder = decoder
        self._transactions = transactions
        self.checkpoint = checkpoint

    def decode(self, messages: Sequence[Message]) -> Batch:
        """Read messages; what cannot be read becomes a dead letter."""
        decode = self._decoder.decode
        events: list[Event] = []
        dead_letters: list[DeadLetter] = []
        skipped: Counter[str] = Counter()
        for message in messages:
            try:
                decoded = decode(message)
            except PoisonError as error:
                dead_letters.append(DeadLetter(message, error.reason, error.detail))
                continue
            if isinstance(decoded, Skipped):
                skipped[decoded.type] += 1
            else:
                events += decoded
        return Batch(messages, events, dead_letters, skipped)

    async def process(self, batch: Batch) -> Outcome:
        """Fold a batch and commit it, except for the messages that can never be folded, which are parked.

        What was folded before is left out:
        once a replica's clock has stepped back, stamps alone do not make a redelivery harmless.

        Raises:
            TransientError: nothing happened, or it is not known whether it did;
                the checkpoint has to be read again before going on.
            FatalError: nothing happened.
        """
        folded = self.checkpoint.position
        if batch.messages and batch.messages[0].position <= folded:
            batch = self.decode([message for message in batch.messages if message.position > folded])
        if not batch.messages:
            return Outcome({})
        try:
            return await self._commit(batch)
        except PoisonError as error:
            return await self._isolate(batch, error)

    async def _commit(self, batch: Batch) -> Outcome:
        before = self.checkpoint
        after = _behind(before, batch)
        async with self._transactions.transaction() as work:
            await work.hold(before)
            endpoints = await work.load(batch.needed)
            verdicts = fold(batch.events, endpoints)
            await work.save(endpoints)
            if batch.dead_letters:
                await work.park(before.stream, batch.dead_letters)
            await work.advance(before, after)
        self.checkpoint = after
        return Outcome(verdicts, batch.dead_letters)

    async def _isolate(self, batch: Batch, error: PoisonError) -> Outcome:
        """Halve a batch that Postgres objects to until the culprit stands alone, and park that."""
        if len(batch.messages) == 1:
            dead_letter = DeadLetter(batch.messages[0], error.reason, error.detail)
            return await self._commit(Batch(batch.messages, (), (dead_letter,), {}))
        middle = len(batch.messages) // 2
        first = await self.process(self.decode(batch.messages[:middle]))
        second = await self.process(self.decode(batch.messages[middle:]))
        return Outcome(
            Counter(first.verdicts) + Counter(second.verdicts),
            (*first.dead_letters, *second.dead_letters),
        )


def _behind(checkpoint: Checkpoint, batch: Batch) -> Checkpoint:
    """Return the checkpoint as it stands once a batch is done."""
    last = batch.messages[-1]
    return replace(
        checkpoint,
        position=last.position,
        anchor=Anchor.of(last),
        skipped=_count_skipped(checkpoint.skipped, batch.skipped) if batch.skipped else checkpoint.skipped,
    )


def _count_skipped(so_far: Mapping[str, int], more: Mapping[str, int]) -> Mapping[str, int]:
    """Add up; a publisher that makes up types must not make the checkpoint grow without end."""
    total = dict(so_far)
    for kind, count in more.items():
        name = kind if kind in total or len(total) < _SKIPPED_TYPES_COUNTED else _OTHER_TYPES
        total[name] = total.get(name, 0) + count
    return total
