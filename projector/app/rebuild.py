"""Rebuild and verify: replay the stream into staging tables, and compare what it implies with the live table.

It is the live path with another source and another end, in phases:

1. begin: fetch the first messages, and decide where the replay starts
2. replay: fold up to where the live table is, and repeat until little is left
3. compare: find the rows that may differ
4. catch up: fold what the daemon folded in the meantime
5. finish: in one short transaction hold the checkpoint, fold the last messages, compare the rows that may differ,
   and, for a rebuild, change those that do

Until the last phase the live table stays as it is: readers read, and the daemon folds.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from projector.app.backoff import growing_pauses_s
from projector.app.pipeline import run_pipeline
from projector.app.ports import Decoder, OpenSource, Rows, Source, Staging
from projector.app.projection import Batch, Projection
from projector.app.replay import Progress, Replay
from projector.app.trust import is_same_stream
from projector.app.write_behind import WriteBehindCache
from projector.domain.checkpoint import Checkpoint
from projector.domain.differences import Differences
from projector.domain.events import Event
from projector.domain.messages import Message
from projector.domain.rules import Rules
from projector.domain.shards import Frontier
from projector.domain.trimmed import Trimmed
from projector.errors import DatabaseUnavailableError, HeldRowsRefusedError, OtherStreamError, StreamTrimmedError

_NEAR_ENOUGH = 2000
"""If a round of the replay had no more messages than this, the rest is folded in a fraction of a second."""
_FINAL_ATTEMPTS = 20
"""Attempts at the last transaction, each of which may wait 10 s for a lock."""
_REGISTERS_HELD = 1_000_000
"""About 230 MB: those of 70,000 endpoints of the simulated fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildOptions:
    """What to replay, what to accept, and what to show."""

    rules: Rules
    stream: str
    apply: bool
    """False: change nothing, only compare."""
    accept_trimmed: bool = False
    """Whether to rely on the table for what the stream no longer holds."""
    show: int = 0
    """How many rows that differ to show."""
    endpoint_id: str | None = None
    """Show this endpoint, and the messages about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A message that names the endpoint that was asked for."""

    message: Message
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a rebuild found and did."""

    replayed: int
    """Messages."""
    position: int
    """Position up to which the table and the stream were compared."""
    differences: Differences
    mentions: Sequence[Mention]

    @property
    def clean(self) -> bool:
        """Whether the table is what the stream implies."""
        return self.differences.clean


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What the first phase decides."""

    origin: Checkpoint
    leading: bool
    """Whether no daemon leads, so that the replay goes to the end of the stream."""
    shards: int
    """Of the live table."""
    parked: set[tuple[int, int]]
    """Position and stored time of the dead letters that the replay may resolve."""


@dataclass(slots=True)
class _Notes:
    """What is noted of the messages that were replayed."""

    replayed: int = 0
    mentions: list[Mention] = field(default_factory=list)
    retried: list[int] = field(default_factory=list)
    """Positions of dead letters."""

    def copy(self) -> "_Notes":
        return _Notes(self.replayed, self.mentions.copy(), self.retried.copy())


class Rebuild:
    """One rebuild or verification."""

    def __init__(
        self,
        decoder: Decoder,
        open_source: OpenSource,
        staging: Staging,
        options: RebuildOptions,
        progress: Progress,
    ) -> None:
        """Take open staging tables."""
        self._decoder = decoder
        self._open_source = open_source
        self._staging = staging
        self._options = options
        self._progress = progress

    async def run(self) -> Report:
        """Replay the stream, compare, and for a rebuild correct the live table; return what was found.

        Raises:
            StreamTrimmedError: the beginning of the stream is gone, and the options do not accept that.
            TransientError, FatalError: nothing was changed.
        """
        try:
            return await self._attempt(WriteBehindCache(self._staging, most_registers=_REGISTERS_HELD))
        except HeldRowsRefusedError:
            # Only a replay that writes each batch on its own shows which messages Postgres objects to.
            await self._staging.clear()
            return await self._attempt(None)

    async def _attempt(self, cache: WriteBehindCache | None) -> Report:
        async with self._open_source() as source:
            return await _Attempt(self._decoder, source, self._staging, self._options, self._progress).run(cache)


class _Attempt:
    """The phases of a rebuild, over one connection to the stream."""

    def __init__(
        self, decoder: Decoder, source: Source, staging: Staging, options: RebuildOptions, progress: Progress
    ) -> None:
        self._decoder = decoder
        self._source = source
        self._staging = staging
        self._options = options
        self._progress = progress
        self._messages = Replay(source)
        self._notes = _Notes()

    async def run(self, cache: WriteBehindCache | None) -> Report:
        start = await self._begin()
        replayed = await self._replay(start, cache)
        await self._staging.compare()
        return await self._finish(start, await self._catch_up(start, replayed))

    async def _begin(self) -> _Start:
        """Fetch the first messages, and decide where the replay starts."""
        live = await self._staging.checkpoints()
        leading = self._options.apply and await self._staging.lead()
        if live and live[0].stream != self._options.stream and not leading:
            raise OtherStreamError(found=live[0].stream, wanted=self._options.stream)
        await self._messages.begin((await self._source.view.state()).first - 1)
        state = await self._source.view.state()
        if state.first > state.began or state.deleted:
            # In another stream, or in an earlier one of the same name, positions mean something else.
            known = (
                bool(live)
                and live[0].stream == self._options.stream
                and await is_same_stream(self._source.view, state, max(live, key=_position))
            )
            if not self._options.accept_trimmed:
                raise StreamTrimmedError(
                    self._options.stream, first=state.first, gone=state.first - state.began + state.deleted, known=known
                )
            if known:
                await self._staging.seed(Trimmed(first=state.first, deleted=await self._source.view.deleted()))
        origin = Checkpoint(
            stream=self._options.stream,
            stream_created_at=state.created_at,
            rules=self._options.rules,
            position=state.first - 1,
        )
        parked = await self._staging.parked(self._options.stream)
        return _Start(origin=origin, leading=leading, shards=max(len(live), 1), parked=parked)

    async def _replay(self, start: _Start, cache: WriteBehindCache | None) -> Checkpoint:
        """Fold until little is left of what the live table has folded; return how far that is."""
        rows = cache or self._staging
        projection = Projection(self._decoder, rows, start.origin, shards=start.shards)
        while True:
            before = self._notes.replayed
            await self._fold_through(await self._target(start), start, projection, rows)
            if self._notes.replayed - before <= _NEAR_ENOUGH:
                break
        if cache is not None:
            await cache.flush()
        return projection.checkpoint

    async def _catch_up(self, start: _Start, replayed: Checkpoint) -> Checkpoint:
        """Fold what the daemon folded in the meantime; return how far that is."""
        projection = Projection(self._decoder, self._staging, replayed, shards=start.shards)
        await self._fold_through(await self._target(start), start, projection, self._staging)
        return projection.checkpoint

    async def _finish(self, start: _Start, caught_up: Checkpoint) -> Report:
        """Hold the live checkpoint, fold the last messages, compare, and apply.

        After a lock time-out, a deadlock or a similar transient error it retries, without another replay.
        """
        pauses_s = growing_pauses_s(first_s=0.2, longest_s=5.0, jitter_s=1.0)
        for _ in range(_FINAL_ATTEMPTS - 1):
            try:
                return await self._try_to_finish(start, caught_up)
            except DatabaseUnavailableError:
                if not self._staging.connected:
                    raise
            await asyncio.sleep(next(pauses_s))
        return await self._try_to_finish(start, caught_up)

    async def _try_to_finish(self, start: _Start, caught_up: Checkpoint) -> Report:
        noted, folded = self._notes.copy(), list[Message]()
        try:
            async with self._staging.finish() as final:
                live = await final.hold()
                frontier = None if start.leading else _frontier(live, start.origin)
                projection = Projection(self._decoder, final.savepoints, caught_up, share=frontier, shards=start.shards)
                target = await self._stream_end() if start.leading else max(map(_position, live), default=0)
                async for batch in self._batches(projection, target, start):
                    folded += batch.messages
                    await projection.process(batch)
                reached = projection.checkpoint
                differences = await final.differences(show=self._options.show, endpoint_id=self._options.endpoint_id)
                if self._options.apply:
                    changed = not differences.clean
                    after = [_after(one, reached, start, changed=changed) for one in live] or [reached]
                    await final.apply(after, self._notes.retried)
        except DatabaseUnavailableError:
            self._notes = noted
            self._messages.put_back(folded)
            raise
        return Report(
            replayed=self._notes.replayed,
            position=reached.position,
            differences=differences,
            mentions=self._notes.mentions,
        )

    async def _target(self, start: _Start) -> int:
        """Return how far to replay: to where every shard of the live table is, or to the end if no daemon folds."""
        if start.leading:
            return await self._stream_end()
        return min(map(_position, await self._staging.checkpoints()), default=0)

    async def _stream_end(self) -> int:
        return (await self._source.view.state()).last

    async def _fold_through(self, target: int, start: _Start, projection: Projection, rows: Rows) -> None:
        batches = self._batches(projection, target, start)
        async with aclosing(run_pipeline(projection, rows, batches)) as pipeline:
            async for _ in pipeline:
                self._progress(projection.checkpoint.position, target)
                await self._staging.show(projection.checkpoint.position, target)

    async def _batches(self, projection: Projection, target: int, start: _Start) -> AsyncGenerator[Batch, None]:
        async for messages in self._messages.batches_through(target):
            batch = await projection.decode(messages)
            self._note(batch, start)
            yield batch

    def _note(self, batch: Batch, start: _Start) -> None:
        notes, wanted = self._notes, self._options.endpoint_id
        notes.replayed += len(batch.messages)
        if start.parked:
            notes.retried += [message.position for message in batch.messages if message[:2] in start.parked]
        if wanted is not None:
            messages: Mapping[int, Message] = {message.position: message for message in batch.messages}
            notes.mentions += [
                Mention(message=messages[event.stamp.position], event=event)
                for event in batch.events
                if wanted in event.endpoint_ids
            ]


def _position(checkpoint: Checkpoint) -> int:
    return checkpoint.position


def _frontier(live: Sequence[Checkpoint], origin: Checkpoint) -> Frontier | None:
    """Return how far each shard of the live table is; None unless there are several."""
    if len(live) < 2:  # noqa: PLR2004 - several
        return None
    return Frontier(tuple(max(checkpoint.position, origin.position) for checkpoint in live))


def _after(live: Checkpoint, folded: Checkpoint, start: _Start, *, changed: bool) -> Checkpoint:
    """Return the checkpoint to leave behind for a shard.

    While a daemon leads, the position of the shard stays: that is where the table was compared.
    """
    after = replace(folded, shard=live.shard, generation=live.generation + changed)
    if live.shard.number:
        after = replace(after, skipped={})  # they are counted in the first shard
    if start.leading or folded.position == start.origin.position > live.position:
        return after
    if live.position < start.origin.position:
        return replace(after, position=start.origin.position, anchor=None)
    return replace(after, position=live.position, anchor=live.anchor)
