"""Following the stream: from the checkpoint on, batch by batch, until told to stop.

A session is: become the one that works, make sure that the stream is still the one that was folded,
put the consumer where the checkpoint is, and fold.
Whatever goes wrong in a way that may pass ends the session, and the next one begins at the beginning:
there is one way to recover, and it is the way to start.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

import stamina

from projector.app.notifications import Active, CaughtUp, Committed, Heartbeat, Received, Retrying, StandingBy
from projector.app.observers import Observer
from projector.app.pipeline import run_pipeline
from projector.app.ports import Decoder, Source, Store
from projector.app.projection import Batch, Projection
from projector.app.stages import Seconds, timed
from projector.app.trust import check_continuity, check_reach, check_source
from projector.domain.checkpoint import Checkpoint, Rules
from projector.domain.messages import Delivery
from projector.errors import RulesChangedError, TransientError

_STANDBY_POLL_S = 1.0
_BREATH_S = 0.1
_PULSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How to follow."""

    rules: Rules
    stream: str
    linger_s: float
    """How long a batch waits to become full, from its first message on."""
    accept_gap: bool = False
    until_caught_up: bool = False


class Live:
    """The daemon's loop."""

    def __init__(
        self, decoder: Decoder, source: Source, store: Store, observer: Observer, options: LiveOptions
    ) -> None:
        """Put the path together: nothing is opened yet."""
        self._decoder = decoder
        self._source = source
        self._store = store
        self._observer = observer
        self._options = options
        self._work: asyncio.Task[None] | None = None
        self._stopping = False
        self._projection: Projection | None = None
        self._pending = 0
        """Messages of ours behind the last that was committed, as far as is known."""
        self._progressed = False

    def stop(self) -> None:
        """Finish the batch in hand, and let `run` return."""
        self._stopping = True
        if self._work is not None and not (self._projection and self._projection.committing):
            self._work.cancel()

    async def run(self) -> None:
        """Follow the stream until stopped, or until its end if the options say so.

        Raises:
            FatalError: going on would be wrong or pointless.
        """
        if self._stopping:
            return
        self._work = asyncio.create_task(self._sessions())
        try:
            await self._work
        except asyncio.CancelledError:
            if not self._stopping:
                self._work.cancel()
                raise
        finally:
            await self._source.close()
            await self._store.close()

    async def _sessions(self) -> None:
        """Hold sessions until one comes to its end; the wait between failed ones grows until one gets somewhere."""
        ended = False
        while not ended:
            async for attempt in stamina.retry_context(
                on=TransientError, attempts=None, timeout=None, wait_initial=0.1, wait_max=2.0, wait_jitter=0.2
            ):
                with attempt:
                    ended = await self._session()

    async def _session(self) -> bool:
        """Hold one session; return whether there is nothing more to do."""
        self._progressed = False
        try:
            await self._follow()
        except TransientError as error:
            if self._stopping:
                return True  # the batch in hand came to nothing, and the next start folds it
            self._observer.notify(Retrying(error=error))
            if self._progressed:
                await asyncio.sleep(_BREATH_S)  # what fails after every batch must not spin
                return False
            raise
        return True

    async def _follow(self) -> None:
        """Become the one that works, and work for as long as the lead lasts."""
        await self._lead()
        working = asyncio.create_task(self._work_on())
        watch = asyncio.create_task(self._store.watch())
        pulse = asyncio.create_task(self._pulse())
        try:
            await asyncio.wait((working, watch), return_when=asyncio.FIRST_COMPLETED)
            await (working if working.done() else watch)
            await self._store.write_lag()
        finally:
            for task in (working, watch, pulse):
                task.cancel()
            await asyncio.gather(working, watch, pulse, return_exceptions=True)

    async def _work_on(self) -> None:
        """Make sure that stream and rows can be trusted, and fold from the checkpoint on."""
        await self._source.open()
        checkpoint = await self._checkpoint()
        if checkpoint.stream != self._options.stream:
            raise RulesChangedError(what="stream", built_with=checkpoint.stream, now=self._options.stream)
        checkpoint.rules.check(self._options.rules)
        await check_source(self._source, checkpoint, accept_gap=self._options.accept_gap)
        checkpoint = await self._cross_gap(checkpoint)
        self._pending = await self._source.position(checkpoint.position)
        self._projection = Projection(self._decoder, self._store, checkpoint)
        self._store.note_lag(self._pending)
        await self._store.write_lag()
        self._observer.notify(Active(checkpoint=checkpoint))
        if not self._pending:
            self._observer.notify(CaughtUp(checkpoint=checkpoint))
        await self._fold(self._projection)

    async def _pulse(self) -> None:
        """Be heard while the database is waited for: a statement that takes long is no loop that is stuck."""
        while True:
            await asyncio.sleep(_PULSE_S)
            if self._store.waiting:
                self._observer.notify(Heartbeat())

    async def _lead(self) -> None:
        """Connect to the database, and become the one projector that works on it."""
        await self._store.open()
        if await self._store.lead():
            return
        self._observer.notify(StandingBy())
        while not await self._store.lead():
            self._observer.notify(Heartbeat())
            await asyncio.sleep(_STANDBY_POLL_S)
            # Connected anew each time, so that the age of the connection is that of the lead.
            await self._store.open()

    async def _checkpoint(self) -> Checkpoint:
        """Return the checkpoint, a new one where nothing was ever folded."""
        checkpoint = await self._store.checkpoint()
        if checkpoint is None:
            state = await self._source.state()
            checkpoint = Checkpoint(
                stream=self._options.stream, stream_created_at=state.created_at, rules=self._options.rules
            )
            await self._store.begin(checkpoint)
        return checkpoint

    async def _cross_gap(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint, moved to where the stream begins if what was before that is gone and accepted."""
        first = (await self._source.state()).first
        if first <= checkpoint.position + 1:
            return checkpoint
        after = replace(checkpoint, position=first - 1, anchor=None)
        async with self._store.transaction() as work:
            await work.hold(checkpoint)
            await work.advance(checkpoint, after)
        return after

    async def _fold(self, projection: Projection) -> None:
        deliveries: deque[Delivery] = deque()
        batches = self._batches(projection, deliveries)
        # Left early, the pipeline must let go of the batches before they are closed.
        async with aclosing(batches), aclosing(run_pipeline(projection, self._store, batches)) as outcomes:
            async for outcome in outcomes:
                delivery = deliveries[0]
                await self._source.acknowledge(delivery)
                self._progressed = True
                self._store.note_lag(delivery.pending)
                self._observer.notify(
                    Committed(checkpoint=projection.checkpoint, outcome=outcome, pending=delivery.pending)
                )
                self._know_pending(projection, delivery.pending)
                deliveries.popleft()  # last, since `_batches` speaks for what is committed where none is left
                if self._stopping:
                    return

    def _know_pending(self, projection: Projection, pending: int) -> None:
        """Take note of how many messages are behind what is committed, and say so where there are none any more."""
        before, self._pending = self._pending, pending
        if before and not pending:
            self._observer.notify(CaughtUp(checkpoint=projection.checkpoint))

    async def _batches(self, projection: Projection, deliveries: deque[Delivery]) -> AsyncGenerator[Batch, None]:
        """Yield batches as they come, and remember what to acknowledge for each."""
        position, pending = projection.checkpoint.position, self._pending
        first = 0
        while pending or not self._options.until_caught_up:
            seconds: Seconds = {}
            with timed(seconds, "fetch"):
                delivery = await self._source.next(self._options.linger_s)
            if delivery is None:
                if pending and not deliveries:
                    # `first` was seen before that wait: what had been sent by then would have come.
                    check_reach(self._options.stream, position, first, accept_gap=self._options.accept_gap)
                    behind = await self._source.behind(position)
                    first = (await self._source.state()).first
                    if first <= position + 1:
                        pending = behind
                        self._know_pending(projection, pending)
                self._store.note_lag(pending + sum(len(under_way.messages) for under_way in deliveries))
                if not deliveries:  # batches are read ahead: that nothing more comes does not show that these get on
                    self._observer.notify(Heartbeat())
                continue
            if not self._options.accept_gap:
                await check_continuity(self._source, self._options.stream, position, delivery.messages)
            position, pending = delivery.messages[-1].position, delivery.pending
            deliveries.append(delivery)
            self._observer.notify(Received(messages=delivery.messages))
            batch = await projection.decode(delivery.messages)
            batch.seconds.update(seconds)
            yield batch
