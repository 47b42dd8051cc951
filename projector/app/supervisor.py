"""The daemon: leads or stands by, runs one session after another, and stops on request.

A transient error ends a session. The next one starts with the same checks, after a pause that grows
until a session commits a batch.
"""

import asyncio
from collections.abc import Iterator

from projector.app.backoff import growing_pauses_s
from projector.app.notifications import Heartbeat, Retrying, StandingBy
from projector.app.observers import Observer
from projector.app.ports import Decoder, OpenSource, Store
from projector.app.publish import Publishing
from projector.app.session import LiveOptions, Session
from projector.errors import (
    BrokerLoginError,
    DatabaseLoginError,
    FatalError,
    LoginRefusedAgainError,
    ShardsChangedError,
    TransientError,
)

_STANDBY_POLL_S = 1.0
_PAUSE_AFTER_PROGRESS_S = 0.1
_HEARTBEAT_S = 1.0


class Supervisor:
    """Runs sessions."""

    def __init__(  # noqa: PLR0913 - each is a part
        self,
        decoder: Decoder,
        open_source: OpenSource,
        store: Store,
        observer: Observer,
        options: LiveOptions,
        *,
        publishing: Publishing | None = None,
    ) -> None:
        """Take the parts; open nothing yet."""
        self._decoder = decoder
        self._open_source = open_source
        self._store = store
        self._observer = observer
        self._options = options
        self._publishing = publishing
        self._work: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._accepted: set[type[FatalError]] = set()
        """Refusals that are transient, because the same login has succeeded before."""
        self._stopping = False

    @property
    def _progressed(self) -> bool:
        return self._session is not None and self._session.progressed

    def stop(self) -> None:
        """Finish the transaction in progress, and make `run` return."""
        self._stopping = True
        if self._session is not None:
            self._session.stop()
        if self._work is not None and not (self._session and self._session.committing):
            self._work.cancel()

    async def run(self) -> None:
        """Follow the stream until stopped, or until its end if the options say so.

        Raises:
            FatalError: continuing would be wrong or pointless.
            ShardsChangedError: the endpoints are now divided in another way.
        """
        if self._stopping:
            return
        self._work = asyncio.create_task(self._retry_until_complete())
        heartbeat = asyncio.create_task(self._beat_while_waiting())
        try:
            await self._work
        except asyncio.CancelledError:
            if not self._stopping:
                self._work.cancel()
                raise
        finally:
            heartbeat.cancel()
            await self._store.leave()

    async def _retry_until_complete(self) -> None:
        """Run sessions until one completes."""
        pauses_s = _pauses_s()
        while not await self._try_session():
            if self._progressed:
                pauses_s = _pauses_s()
                await asyncio.sleep(_PAUSE_AFTER_PROGRESS_S)  # a failure after every batch must not cause a busy loop
            else:
                await asyncio.sleep(next(pauses_s))

    async def _try_session(self) -> bool:
        """Run one session; return whether it completed."""
        self._session = None
        try:
            await self._attempt()
        except ShardsChangedError:
            raise
        except TransientError as error:
            if self._stopping:
                return True  # the transaction was rolled back; the next start folds the batch
            self._observer.notify(Retrying(error=error, shard=self._options.shard))
            return False
        return True

    async def _attempt(self) -> None:
        """Become the leader, and run a session.

        Raises:
            LoginRefusedAgainError: a server refuses a login that it accepted before.
        """
        try:
            await self._lead()
            await self._work_while_leading()
        except (BrokerLoginError, DatabaseLoginError) as error:
            if type(error) not in self._accepted:
                raise
            raise LoginRefusedAgainError(str(error)) from error

    async def _lead(self) -> None:
        """Connect to the database, and become the leader."""
        await self._store.open()
        self._accepted.add(DatabaseLoginError)
        if await self._store.lead():
            return
        self._observer.notify(StandingBy(shards=self._options.shard.of))
        while not await self._store.lead():
            self._observer.notify(Heartbeat())
            await asyncio.sleep(_STANDBY_POLL_S)
            # A new connection each time, so that the age of the connection is that of the lead.
            await self._store.open()

    async def _work_while_leading(self) -> None:
        """Run a session, and end it if the lead is lost."""
        working = asyncio.create_task(self._run_session())
        watch = asyncio.create_task(self._store.watch())
        publishing = asyncio.create_task(self._publish())
        tasks = (working, watch, publishing)
        try:
            await asyncio.wait((working, watch), return_when=asyncio.FIRST_COMPLETED)
            await (working if working.done() else watch)
            await self._store.write_lag()
            if self._publishing is not None and not self._stopping:
                self._publishing.finish()
                await asyncio.wait((publishing, watch), return_when=asyncio.FIRST_COMPLETED)
                if not publishing.done():
                    await watch
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _publish(self) -> None:
        """Publish what the session folds; whatever happens to publishing, the session goes on."""
        if self._publishing is not None:
            await self._publishing.run(self._is_behind)

    def _is_behind(self) -> bool:
        return self._session is not None and self._session.is_behind

    async def _run_session(self) -> None:
        async with self._open_source() as source:
            self._accepted.add(BrokerLoginError)
            self._session = Session(self._decoder, source, self._store, self._observer, self._options)
            await self._session.run()

    async def _beat_while_waiting(self) -> None:
        """Send heartbeats while a server is slow: a slow server is not a stuck loop.

        Every wait of the drivers has a timeout. A session that folds sends its own heartbeats.
        """
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            if self._store.waiting or self._session is None or not self._session.folding:
                self._observer.notify(Heartbeat())


def _pauses_s() -> Iterator[float]:
    return growing_pauses_s(first_s=0.1, longest_s=2.0, jitter_s=0.2)
