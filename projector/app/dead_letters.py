"""Retrying dead letters: each takes the path of a live message, with its own position."""

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from projector.app.ports import Decoder, Transactions
from projector.app.projection import Projection
from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import DeadLetter, Message, Selection
from projector.domain.rules import Rules
from projector.errors import NoDeadLetterError


class RetryStore(Transactions, Protocol):
    """Where dead letters are kept; implemented by `storage.dead_letters.Retry`."""

    async def positions(self, selection: Selection) -> list[int]:
        """Return where the chosen dead letters are, in stream order."""
        ...

    async def message(self, position: int) -> Message:
        """Return a dead letter's message as it was received."""
        ...


class Retried(NamedTuple):
    """What came of one dead letter."""

    position: int
    parked_again: DeadLetter | None
    """None: it is resolved."""


async def retry(
    decoder: Decoder, store: RetryStore, selection: Selection, *, stream: str, rules: Rules
) -> AsyncIterator[Retried]:
    """Fold dead letters one by one, each in a transaction of its own, and yield what came of it.

    A message that comes late this way changes only what it supersedes.

    Raises:
        NoDeadLetterError: none is parked at one of the positions that were named; nothing happened.
        RulesChangedError: the rows were built by other rules.
        TransientError, FatalError: as their names say; those yielded before stand.
    """
    positions = await store.positions(selection)
    for position in selection.positions:
        if position not in positions:
            raise NoDeadLetterError(position)
    for position in positions:
        message = await store.message(position)
        just_before = Checkpoint(stream=stream, stream_created_at=0, rules=rules, position=position - 1)
        projection = Projection(decoder, store, just_before)
        outcome = await projection.process(await projection.decode([message]))
        yield Retried(position, outcome.dead_letters[0] if outcome.dead_letters else None)
