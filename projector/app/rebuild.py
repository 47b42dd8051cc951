"""Rebuild and verify: replay the stream into staging tables, and compare what it implies with what is there.

It is the live path with another source and another end.
The live table stays as it is, and everybody goes on reading and folding, until one short transaction:
it holds the checkpoint, folds the last messages, compares the rows that may differ,
and, for a rebuild, changes those that do.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from projector.app.pipeline import run_pipeline
from projector.app.ports import Decoder, Rows, Source
from projector.app.projection import Batch, Projection
from projector.app.write_behind import WriteBehind
from projector.domain.checkpoint import Checkpoint, Rules
from projector.domain.differences import Differences
from projector.domain.events import Event
from projector.domain.messages import Message, StreamState
from projector.errors import DeliveryInterruptedError, HeldRowsRefusedError, StreamTrimmedError

_LINGER_S = 0.05
_NEAR_ENOUGH = 2000
"""So few messages in one round of catching up that the rest is folded in a fraction of a second."""
_REGISTERS_HELD = 1_000_000
"""Those of about 100,000 endpoints."""


class Finish(Protocol):
    """The last transaction; implemented by `storage.staging.Finish`."""

    async def hold(self) -> Checkpoint | None:
        """Keep every projector from folding; return the live checkpoint."""
        ...

    async def differences(self, *, show: int, endpoint_id: str | None) -> Differences:
        """Return how the live table is not what the stream implies."""
        ...

    async def apply(self, checkpoint: Checkpoint, retried: Collection[int]) -> None:
        """Change the rows that differ, settle the dead letters, move the checkpoint."""
        ...


class Staging(Rows, Protocol):
    """The staging tables; implemented by `storage.staging.Staging`."""

    async def lead(self) -> bool:
        """Become the one projector that works unless a daemon is; return whether it did."""
        ...

    async def checkpoint(self) -> Checkpoint | None:
        """Return the live checkpoint."""
        ...

    async def parked(self, stream: str) -> set[tuple[int, int]]:
        """Return position and stored time of the dead letters that wait for somebody."""
        ...

    async def seed(self, first: int) -> None:
        """Begin with what the live table knows from before a position."""
        ...

    async def clear(self) -> None:
        """Forget what was folded."""
        ...

    async def show(self, position: int, target: int) -> None:
        """Let others see which position is reached, and which is to be."""
        ...

    async def compare(self) -> None:
        """Find the rows that may differ."""
        ...

    def finish(self) -> AbstractAsyncContextManager[Finish]:
        """Begin the last transaction."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildOptions:
    """What to do."""

    rules: Rules
    stream: str
    apply: bool
    """False: change nothing, only compare."""
    accept_trimmed: bool = False
    show: int = 0
    """How many rows that differ to show."""
    endpoint_id: str | None = None
    """Show this endpoint, and the messages about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A message that named the endpoint that was asked for."""

    message: Message
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a rebuild found and did."""

    replayed: int
    """Messages."""
    position: int
    """Up to which table and stream were compared."""
    differences: Differences
    mentions: Sequence[Mention]

    @property
    def clean(self) -> bool:
        """Whether the table is what the stream implies."""
        return self.differences.clean


Progress = Callable[[int, int], None]
"""Hears the position reached and the one to reach."""


class Rebuild:
    """One rebuild or verification."""

    def __init__(
        self, decoder: Decoder, source: Source, staging: Staging, options: RebuildOptions, progress: Progress
    ) -> None:
        """Take an opened source, which replays, and opened staging tables."""
        self._decoder = decoder
        self._replay = Replay(source)
        self._source = source
        self._staging = staging
        self._options = options
        self._progress = progress
        self._mentions: list[Mention] = []
        self._held: WriteBehind | None = None
        self._replayed = 0
        self._parked: set[tuple[int, int]] = set()
        self._retried: list[int] = []

    async def run(self) -> Report:
        """Do it.

        Raises:
            StreamTrimmedError: the beginning of the stream is gone, and that was not accepted.
            TransientError, FatalError: nothing was changed.
        """
        try:
            return await self._attempt(WriteBehind(self._staging, most_registers=_REGISTERS_HELD))
        except HeldRowsRefusedError:
            # Which messages Postgres objects to shows only where each batch is written on its own.
            await self._staging.clear()
            await self._source.open()  # what is still on its way must not be taken for the new replay
            return await self._attempt(None)

    async def _attempt(self, held: WriteBehind | None) -> Report:
        """Replay from the beginning, writing behind if told so."""
        self._held = held
        self._replayed = 0
        self._mentions.clear()
        self._retried.clear()
        await self._replay.begin((await self._source.state()).first - 1)
        # Retention goes on: where the stream begins is certain only for messages that are in hand.
        origin = await self._origin(await self._source.state())
        self._parked = await self._staging.parked(self._options.stream)
        # Without a daemon we are the one projector that works, and may go to the end of the stream.
        leading = self._options.apply and await self._staging.lead()
        rows = held or self._staging
        projection = Projection(self._decoder, rows, origin)
        near = False
        while not near:
            folded = await self._catch_up(projection, rows, leading=leading)
            full = held is not None and held.is_full  # then the replay was broken off, however near it was
            near = folded <= _NEAR_ENOUGH and not full
            if held is not None and (near or full):
                await held.flush()
        await self._staging.compare()
        projection = Projection(self._decoder, self._staging, projection.checkpoint)
        await self._catch_up(projection, self._staging, leading=leading)
        return await self._finish(projection, leading=leading)

    async def _origin(self, state: StreamState) -> Checkpoint:
        """Return the checkpoint that the replay begins from."""
        if state.first > 1:
            if not self._options.accept_trimmed:
                raise StreamTrimmedError(self._options.stream, first=state.first)
            live = await self._staging.checkpoint()
            # Of another stream, or of one that was in its place before, the positions mean nothing here.
            if live is not None and (live.stream, live.stream_created_at) == (self._options.stream, state.created_at):
                await self._staging.seed(state.first)
        return Checkpoint(
            stream=self._options.stream,
            stream_created_at=state.created_at,
            rules=self._options.rules,
            position=state.first - 1,
        )

    async def _catch_up(self, projection: Projection, rows: Rows, *, leading: bool) -> int:
        """Fold up to where the live table is, or the stream if nobody else folds; return how many messages that was."""
        before = self._replayed
        live = await self._staging.checkpoint()
        await self._fold(projection, rows, await self._target(live, leading=leading))
        return self._replayed - before

    async def _target(self, live: Checkpoint | None, *, leading: bool) -> int:
        if leading:
            return (await self._source.state()).last
        return 0 if live is None else live.position

    async def _fold(self, projection: Projection, rows: Rows, target: int) -> None:
        batches = self._batches(projection, target)
        # Left early, the pipeline must let go of the batches before they are closed.
        async with aclosing(batches), aclosing(run_pipeline(projection, rows, batches)) as outcomes:
            async for _ in outcomes:
                self._progress(projection.checkpoint.position, target)
                await self._staging.show(projection.checkpoint.position, target)

    async def _batches(self, projection: Projection, target: int) -> AsyncGenerator[Batch, None]:
        async for messages in self._replay.until(target):
            batch = await projection.decode(messages)
            self._note(batch)
            if self._parked:
                self._retried += [message[0] for message in messages if message[:2] in self._parked]
            self._replayed += len(messages)
            yield batch
            if self._held is not None and self._held.is_full:
                return

    def _note(self, batch: Batch) -> None:
        """Keep what the batch says about the endpoint that was asked for."""
        wanted = self._options.endpoint_id
        if wanted is None:
            return
        messages: Mapping[int, Message] = {message.position: message for message in batch.messages}
        self._mentions += [
            Mention(message=messages[event.stamp.position], event=event)
            for event in batch.events
            if wanted in event.endpoint_ids
        ]

    async def _finish(self, projection: Projection, *, leading: bool) -> Report:
        async with self._staging.finish() as end:
            live = await end.hold()
            # In the transaction that is under way, what was folded is not to be seen from beside it.
            async for batch in self._batches(projection, await self._target(live, leading=leading)):
                await projection.process(batch)
            folded = projection.checkpoint
            differences = await end.differences(show=self._options.show, endpoint_id=self._options.endpoint_id)
            if self._options.apply:
                after = _checkpoint(folded, live, leading=leading, changed=not differences.clean)
                await end.apply(after, self._retried)
        return Report(
            replayed=self._replayed,
            position=folded.position,
            differences=differences,
            mentions=self._mentions,
        )


class Replay:
    """The messages of a source up to positions that are named one after the other."""

    def __init__(self, source: Source) -> None:
        """Read from an opened source."""
        self._source = source
        self._left: Sequence[Message] = ()
        self._seen = 0
        self._pending = 0

    async def begin(self, after: int) -> None:
        """Go on behind a position, and have the first messages in hand."""
        self._left = ()
        self._seen = after
        self._pending = await self._source.position(after)
        if self._pending:
            await self._read()

    async def until(self, target: int) -> AsyncIterator[Sequence[Message]]:
        """Yield batches of messages up to a position; what came with them from behind it is kept for the next time."""
        while True:
            if not self._left:
                if not await self._more(target):
                    return
                seen = self._seen
                await self._read()
                if self._seen - seen > len(self._left) and await self._first() > seen + 1:
                    raise _left_unread(seen)
                if not self._left:
                    return
            wanted = self._left
            if wanted[-1].position > target:
                wanted = [message for message in wanted if message.position <= target]
            self._left = self._left[len(wanted) :]
            if wanted:
                yield wanted
            if self._left:
                return

    async def _read(self) -> None:
        """Have the next messages in hand, or none where those that were pending were deleted one by one."""
        first = 0
        while (delivery := await self._source.next(_LINGER_S)) is None:
            if first > self._seen + 1:  # seen before that wait: what had been sent by then would have come
                raise _left_unread(self._seen)
            pending = await self._source.behind(self._seen)
            first = await self._first()
            if not pending and first <= self._seen + 1:
                self._pending = 0
                return
        self._left, self._pending = delivery.messages, delivery.pending
        self._seen = delivery.messages[-1].position

    async def _more(self, target: int) -> bool:
        """Tell whether there is anything to wait for; what was pending may have been long ago."""
        if not self._pending and self._seen < target:
            self._pending = await self._source.behind(self._seen)
            if not self._pending and await self._first() > target:
                raise _left_unread(self._seen)
        return self._pending > 0 and self._seen < target

    async def _first(self) -> int:
        return (await self._source.state()).first


def _left_unread(seen: int) -> DeliveryInterruptedError:
    return DeliveryInterruptedError(f"messages behind position {seen} left the stream before they were read")


def _checkpoint(folded: Checkpoint, live: Checkpoint | None, *, leading: bool, changed: bool) -> Checkpoint:
    """Return the checkpoint to leave behind.

    While a daemon works its position is what the table was compared at, and it stays.
    """
    if live is None:
        return folded
    after = replace(folded, generation=live.generation + changed)
    if leading or live.position < folded.position:
        return after
    return replace(after, position=live.position, anchor=live.anchor)
