"""Retries dead letters: each takes the path of a live message, with its own position."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from projector.app.backoff import growing_pauses_s
from projector.app.ports import Decoder, Transactions
from projector.app.projection import Outcome, Projection
from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import DeadLetter, Message, Selection
from projector.domain.rules import Rules
from projector.errors import NoDeadLetterError, RetryTooEarlyError

_ATTEMPTS = 10
"""About ten seconds."""


class RetryStore(Transactions, Protocol):
    """The stored dead letters; see `storage.dead_letters.Retry`."""

    async def count_shards(self) -> int:
        """Return the number of shards; raises DatabaseRefusedError."""
        ...

    async def positions(self, selection: Selection) -> list[int]:
        """Return the positions of the selected dead letters, in stream order."""
        ...

    async def message(self, position: int) -> Message:
        """Return the message of a dead letter as it was received; raises NoDeadLetterError."""
        ...


class Retried(NamedTuple):
    """The result of retrying one dead letter."""

    position: int
    parked_again: DeadLetter | None
    """None if it was resolved."""


async def retry(
    decoder: Decoder, store: RetryStore, selection: Selection, *, stream: str, rules: Rules
) -> AsyncIterator[Retried]:
    """Fold dead letters one by one, each in its own transaction, and yield the results.

    A late message changes only what it supersedes. If an error is raised, the results yielded before it remain valid.

    Raises:
        NoDeadLetterError: a selected position has no parked dead letter; nothing was changed.
        DatabaseRefusedError: the checkpoint of a shard is missing.
        RulesChangedError: the rows were built by other rules.
        RetryTooEarlyError: a shard has not reached the position of a dead letter that another one has parked.
    """
    positions = await store.positions(selection)
    for position in selection.positions:
        if position not in positions:
            raise NoDeadLetterError(position)
    shards = await store.count_shards()
    for position in positions:
        message = await store.message(position)
        just_before = Checkpoint(stream=stream, stream_created_at=0, rules=rules, position=position - 1)
        projection = Projection(decoder, store, just_before, shards=shards, logs_changes=True)
        outcome = await _fold(projection, message)
        yield Retried(position, outcome.dead_letters[0] if outcome.dead_letters else None)


async def _fold(projection: Projection, message: Message) -> Outcome:
    """Fold a message once every shard is past it: a shard that is not would still come to it by itself."""
    pauses_s = growing_pauses_s(first_s=0.1, longest_s=2.0, jitter_s=0.1)
    for _ in range(_ATTEMPTS - 1):
        try:
            return await projection.process(await projection.decode([message]))
        except RetryTooEarlyError:
            await asyncio.sleep(next(pauses_s))
    return await projection.process(await projection.decode([message]))
