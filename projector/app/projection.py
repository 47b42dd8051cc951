"""The one path: decode all, load the endpoints once, fold message by message, save, park, advance.

Live, rebuild and retry differ only in where the messages come from, and in the rows and transactions they end in.
Where batches follow one another, the next is loaded and folded while one is committed: see `pipeline`.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from projector.app.ports import Decoder, Load, Rows, Transactions, UnitOfWork
from projector.app.stages import Seconds, added, timed
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.endpoint import TOUCHED_FACETS, Endpoint, FacetSet, fold
from projector.domain.events import Event
from projector.domain.facets import Verdict
from projector.domain.messages import DeadLetter, Message, Skipped
from projector.errors import DatabaseRefusedError, PoisonError, RowsChangedError

T = TypeVar("T")

_SKIPPED_TYPES_COUNTED = 200
_OTHER_TYPES = "(other)"
_AT_A_STRETCH = 100
"""Messages or events to work on before others get their turn: Postgres waits for most of a millisecond."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in stream order, and all that could be read from them without knowing any endpoint."""

    messages: Sequence[Message]
    events: Sequence[Event]
    dead_letters: Sequence[DeadLetter]
    skipped: Mapping[str, int]
    duplicates: int = 0
    """Messages that were left out, since they had been folded before."""
    seconds: Seconds = field(default_factory=dict)
    """What its stages took so far."""

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
class Folded:
    """A batch and what it makes of the endpoints it names, ready to be committed."""

    batch: Batch
    endpoints: Mapping[str, Endpoint]
    verdicts: Mapping[tuple[type[Any], Verdict], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a batch once it was committed."""

    messages: int
    """How many were folded, skipped or parked."""
    verdicts: Mapping[tuple[type[Any], Verdict], int]
    """How many events of a type came to which verdict."""
    skipped: Mapping[str, int]
    """Messages of unknown types, by type."""
    dead_letters: Sequence[DeadLetter]
    duplicates: int
    """Messages that had been folded before."""
    seconds: Seconds
    """What its stages took."""
    refolded: bool = False
    """Whether the batch had to be folded anew, so that nothing folded on top of it holds."""

    @property
    def events(self) -> int:
        """How many events were folded, whatever came of them."""
        return sum(self.verdicts.values())

    def __add__(self, other: "Outcome") -> "Outcome":
        """Return what came of two parts of a batch."""
        return Outcome(
            messages=self.messages + other.messages,
            verdicts=Counter(self.verdicts) + Counter(other.verdicts),
            skipped=Counter(self.skipped) + Counter(other.skipped),
            dead_letters=(*self.dead_letters, *other.dead_letters),
            duplicates=self.duplicates + other.duplicates,
            seconds=added(self.seconds, other.seconds),
        )


class Projection:
    """Folds batches from a checkpoint on, each in one transaction that moves the checkpoint."""

    def __init__(self, decoder: Decoder, transactions: Transactions, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self._decoder = decoder
        self._transactions = transactions
        self.checkpoint = checkpoint
        self.committing = False
        """Whether a transaction is under way that should not be broken off."""

    async def decode(self, messages: Sequence[Message]) -> Batch:
        """Read messages; what cannot be read becomes a dead letter."""
        decode = self._decoder.decode
        events: list[Event] = []
        dead_letters: list[DeadLetter] = []
        skipped: Counter[str] = Counter()
        batch = Batch(messages, events, dead_letters, skipped)
        with timed(batch.seconds, "decode"):
            for stretch in _stretches(messages):
                for message in stretch:
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
        return batch

    async def process(self, batch: Batch) -> Outcome:
        """Fold a batch and commit it, except for the messages that can never be folded, which are parked.

        Raises:
            TransientError: nothing happened, or it is not known whether it did;
                the checkpoint has to be read again before going on.
            FatalError: nothing happened.
        """
        batch = await self._unfolded(batch, self.checkpoint.position)
        try:
            async with self._transactions.transaction() as work:
                await work.hold(self.checkpoint)
                written = await self._write(work, await self._fold(batch, work.load, {}))
        except PoisonError as error:
            return await self._isolate(batch, error)
        self.checkpoint = written.checkpoint
        return written.outcome

    async def fold(self, batch: Batch, rows: Rows, previous: Folded | None) -> Folded:
        """Fold a batch before the previous one is committed.

        What that one makes of the endpoints that it names is taken from it, where the rows do not know it already.

        Raises:
            TransientError, FatalError: as `rows.load` does.
        """
        if previous is None or not previous.batch.messages:
            return await self._fold(await self._unfolded(batch, self.checkpoint.position), rows.load, {})
        batch = await self._unfolded(batch, previous.batch.messages[-1].position)
        return await self._fold(batch, rows.load, {} if rows.loads_uncommitted else previous.endpoints)

    async def commit(self, folded: Folded) -> Outcome:
        """Commit a batch that was folded from the present checkpoint on.

        Raises:
            TransientError, FatalError: as `process`.
        """
        self.committing = True
        try:
            with timed(folded.batch.seconds, "commit"):
                async with self._transactions.transaction() as work:
                    await work.hold(self.checkpoint)
                    written = await self._write(work, folded)
        except RowsChangedError as error:
            self.checkpoint = replace(self.checkpoint, generation=error.generation)
            return replace(await self.process(folded.batch), refolded=True)
        except PoisonError as error:
            return replace(await self._isolate(folded.batch, error), refolded=True)
        finally:
            self.committing = False
        self.checkpoint = written.checkpoint
        return written.outcome

    async def _unfolded(self, batch: Batch, position: int) -> Batch:
        """Return what of a batch lies behind a position.

        Once a replica's clock has stepped back, stamps alone do not make a redelivery harmless.
        """
        if not batch.messages or batch.messages[0].position > position:
            return batch
        unfolded = await self.decode([message for message in batch.messages if message.position > position])
        return replace(
            unfolded,
            duplicates=batch.duplicates + len(batch.messages) - len(unfolded.messages),
            seconds=added(batch.seconds, unfolded.seconds),
        )

    async def _fold(self, batch: Batch, load: Load, known: Mapping[str, Endpoint]) -> Folded:
        with timed(batch.seconds, "load"):
            endpoints = await load_known(batch.needed, load, known, copy=True)
        verdicts: Counter[tuple[type[Any], Verdict]] = Counter()
        with timed(batch.seconds, "fold"):
            for stretch in _stretches(batch.events):
                verdicts += fold(stretch, endpoints)
                await asyncio.sleep(0)
        return Folded(batch, endpoints, verdicts)

    async def _write(self, work: UnitOfWork, folded: Folded) -> "_Written":
        batch, before = folded.batch, self.checkpoint
        outcome = Outcome(
            messages=len(batch.messages),
            verdicts=folded.verdicts,
            skipped=batch.skipped,
            dead_letters=batch.dead_letters,
            duplicates=batch.duplicates,
            seconds=batch.seconds,
        )
        if not batch.messages:
            return _Written(before, outcome)
        after = _advanced(before, batch)
        with timed(batch.seconds, "save"):
            await work.save(folded.endpoints)
        if batch.dead_letters:
            await work.park(before.stream, batch.dead_letters)
        await work.advance(before, after)
        return _Written(after, outcome)

    async def _isolate(self, batch: Batch, error: PoisonError) -> Outcome:
        """Halve a batch that Postgres objects to until the culprit stands alone, and park that."""
        if len(batch.messages) == 1:
            if batch.dead_letters:
                raise DatabaseRefusedError(
                    f"Postgres does not let us park a message: {error.detail}; see what guards the table dead_letter"
                ) from error
            # What cannot be written may have been in the row before: then it is not the message that is to blame.
            async with self._transactions.transaction() as work:
                await work.check(batch.needed)
            culprit = DeadLetter(batch.messages[0], error.reason, error.detail)
            return await self.process(Batch(batch.messages, (), (culprit,), {}))
        middle = len(batch.messages) // 2
        first = await self.process(await self.decode(batch.messages[:middle]))
        return first + await self.process(await self.decode(batch.messages[middle:]))


class _Written(NamedTuple):
    """What a transaction leaves behind once it is committed."""

    checkpoint: Checkpoint
    outcome: Outcome


async def load_known(
    needed: Mapping[str, FacetSet], load: Load, known: Mapping[str, Endpoint], *, copy: bool
) -> dict[str, Endpoint]:
    """Return endpoints to fold on: those that are known, or copies of them, and from `load` what they lack."""
    if not known:
        return await load(needed)
    endpoints: dict[str, Endpoint] = {}
    missing: dict[str, FacetSet] = {}
    for endpoint_id, facets in needed.items():
        endpoint = known.get(endpoint_id)
        if endpoint is None:
            missing[endpoint_id] = facets
        else:
            endpoints[endpoint_id] = endpoint.copy() if copy else endpoint
            if None in endpoint.states and (lacking := endpoint.lacking(facets)):
                missing[endpoint_id] = lacking
    for endpoint_id, loaded in (await load(missing)).items():
        endpoint = endpoints.get(endpoint_id)
        if endpoint is None:
            endpoints[endpoint_id] = loaded
        else:
            endpoint.complete(loaded)
    return endpoints


def _stretches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the parts of a batch between which others get their turn."""
    for start in range(0, len(items), _AT_A_STRETCH):
        yield items[start : start + _AT_A_STRETCH]


def _advanced(checkpoint: Checkpoint, batch: Batch) -> Checkpoint:
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
