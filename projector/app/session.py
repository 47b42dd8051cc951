"""One session: folds from the checkpoint until an error, a stop or the end of the stream.

A session verifies that the stream is the one that was folded, moves the consumer to the checkpoint, and folds.
It begins as the leader, with a new connection to the stream and no state of the previous session:
a recovery takes the same path as a start.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from projector.app.batch_size import BatchSize
from projector.app.notifications import Active, CaughtUp, Committed, Heartbeat, Received, StreamRecognized
from projector.app.observers import Observer
from projector.app.pipeline import Processed, run_pipeline
from projector.app.ports import Decoder, Source, Store
from projector.app.projection import Batch, Projection
from projector.app.reader import Gap, Idle, Reader
from projector.app.stages import Seconds, timed
from projector.app.trust import check_stream
from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import Delivery
from projector.domain.rules import Rules
from projector.domain.shards import WHOLE, Shard
from projector.errors import EventsLostError, OtherStreamError

_BACKLOG = 10_000
"""Messages; a steady rate leaves fewer of them, even on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How to follow a stream."""

    rules: Rules
    stream: str
    shard: Shard = WHOLE
    """Which endpoints to fold."""
    linger_s: float
    """How long a delivery waits for more messages after its first."""
    batch_size: int
    """The most messages that the consumer delivers at once; a batch has no more unless the lag is large."""
    largest_batch: int
    """The most messages of a batch."""
    accept_gap: bool = False
    """Whether to continue if events left the stream before they were folded."""
    until_caught_up: bool = False
    """Whether to end at the end of the stream."""


class Session:
    """Follows the stream as the leader."""

    def __init__(
        self, decoder: Decoder, source: Source, store: Store, observer: Observer, options: LiveOptions
    ) -> None:
        """Take an open source, and a store that leads."""
        self._decoder = decoder
        self._source = source
        self._store = store
        self._observer = observer
        self._options = options
        self._reader = Reader(source, linger_s=options.linger_s)
        self._batch_size = BatchSize(least=options.batch_size, most=options.largest_batch)
        self._projection: Projection | None = None
        self._under_way = 0
        """Uncommitted batches."""
        self._uncommitted = 0
        """Messages in them."""
        self._caught_up = False
        self._stopping = False
        self.folding = False
        """Whether the session has begun to follow the stream."""
        self.progressed = False
        """Whether a batch was committed."""

    @property
    def is_behind(self) -> bool:
        """Whether the session has a backlog to fold."""
        return self._lag > _BACKLOG

    @property
    def committing(self) -> bool:
        """Whether a transaction is in progress, which should be allowed to finish."""
        return self._projection is not None and self._projection.committing

    def stop(self) -> None:
        """Make `run` return after the batch that is being committed."""
        self._stopping = True

    async def run(self) -> None:
        """Fold until stopped, or until the end of the stream if the options say so.

        Raises:
            TransientError: the session is over; another one may succeed.
            FatalError: continuing would be wrong.
        """
        known = await self._store.checkpoint()
        checkpoint = await (self._new_checkpoint() if known is None else self._verified(known))
        projection = self._projection = Projection(
            self._decoder,
            self._store,
            checkpoint,
            share=None if self._options.shard == WHOLE else self._options.shard,
            logs_changes=self._store.logs_changes,
        )
        gap = await self._reader.seek(checkpoint.position)
        if known is None:
            await self._store.begin(checkpoint)  # a stream that cannot be followed must not claim the tables
        if gap is not None:
            await projection.process(self._across(gap))
        await self._announce(projection.checkpoint)
        self.folding = True
        # If the session ends early, the pipeline must release its batches at once.
        async with aclosing(run_pipeline(projection, self._store, self._batches(projection))) as pipeline:
            async for processed in pipeline:
                await self._finish(processed, projection.checkpoint)
                del processed  # its messages may be large: free them before waiting for the next batch
                if self._stopping:
                    return

    async def _new_checkpoint(self) -> Checkpoint:
        """Return a checkpoint for tables into which nothing was ever folded."""
        state = await self._source.view.state()
        return Checkpoint(
            stream=self._options.stream,
            stream_created_at=state.created_at,
            rules=self._options.rules,
            shard=self._options.shard,
        )

    async def _verified(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return a checkpoint whose rules and stream are those of this session."""
        if checkpoint.stream != self._options.stream:
            raise OtherStreamError(found=checkpoint.stream, wanted=self._options.stream)
        checkpoint.rules.check(self._options.rules)
        state = await check_stream(self._source.view, checkpoint)
        if state.created_at == checkpoint.stream_created_at:
            return checkpoint
        return await self._adopt(checkpoint, state.created_at)

    async def _adopt(self, checkpoint: Checkpoint, created_at: int) -> Checkpoint:
        """Adopt the creation time that NATS has changed; the stream is the same."""
        adopted = replace(checkpoint, stream_created_at=created_at)
        async with self._store.transaction() as work:
            await work.hold(checkpoint)
            await work.advance(checkpoint, adopted)
        self._observer.notify(StreamRecognized(checkpoint=adopted, created_before=checkpoint.stream_created_at))
        return adopted

    async def _announce(self, checkpoint: Checkpoint) -> None:
        self._store.note_lag(self._lag)
        await self._store.write_lag()
        self._observer.notify(Active(checkpoint=checkpoint))
        self._note_lag(checkpoint)

    async def _batches(self, projection: Projection) -> AsyncGenerator[Batch, None]:
        while not (self._options.until_caught_up and await self._reader.is_at_end()):
            seconds = Seconds()
            with timed(seconds, "fetch"):
                reading = await self._reader.next(joined=self._batch_size.limit(self._reader.pending))
            match reading:
                case Delivery(messages=messages):
                    self._under_way += 1
                    self._uncommitted += len(messages)
                    self._observer.notify(Received(messages=messages))
                    yield await projection.decode(messages, delivery=reading, seconds=seconds)
                case Gap():
                    self._under_way += 1
                    yield self._across(reading)
                case Idle():
                    self._rest(projection.checkpoint)

    def _across(self, gap: Gap) -> Batch:
        """Return a batch that moves the checkpoint across a gap.

        Raises:
            EventsLostError: the options do not accept it.
        """
        if not self._options.accept_gap:
            raise EventsLostError(self._options.stream, checkpoint=gap.after, first=gap.first)
        return Batch(position=gap.first - 1)

    def _rest(self, checkpoint: Checkpoint) -> None:
        self._note_lag(checkpoint)
        # Batches are read ahead: an idle consumer says nothing about the batches in progress.
        if not self._under_way:
            self._observer.notify(Heartbeat())

    async def _finish(self, processed: Processed, checkpoint: Checkpoint) -> None:
        """Acknowledge a committed batch, and notify the observer."""
        self.progressed = True
        self._batch_size.adapt(processed.outcome)
        self._under_way -= 1
        delivery = processed.batch.delivery
        if delivery is not None:
            await self._source.consumer.acknowledge(delivery)
            self._uncommitted -= len(delivery.messages)
            self._observer.notify(Heartbeat())
            self._observer.notify(Committed(checkpoint=checkpoint, outcome=processed.outcome, pending=delivery.pending))
        self._note_lag(checkpoint)

    @property
    def _lag(self) -> int:
        """Uncommitted matching messages, as far as is known."""
        return self._reader.pending + self._uncommitted

    def _note_lag(self, checkpoint: Checkpoint) -> None:
        self._store.note_lag(self._lag)
        caught_up = not self._lag and not self._under_way
        if caught_up and not self._caught_up:
            self._observer.notify(CaughtUp(checkpoint=checkpoint))
        self._caught_up = caught_up
