"""Several workers, each a process of its own, that are kept running together.

A worker that dies is started again, after a pause that grows; if it keeps dying soon after its start, everything ends.
A worker that sends no more notifications is killed, since its event loop is blocked.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from signal import Signals
from time import monotonic
from typing import Protocol

from projector.app.backoff import growing_pauses_s
from projector.app.notifications import (
    Active,
    Heartbeat,
    Notification,
    Released,
    Retrying,
    StandingBy,
    TooManyWorkers,
    WorkerDied,
)
from projector.app.observers import Observer, Observers
from projector.domain.shards import WHOLE, Shard
from projector.errors import WorkerFailedError

_HEARTBEAT_S = 1.0
_LONG_ENOUGH_S = 30.0
"""A worker that ran for this long did not die soon after its start."""
_MOST_DEATHS = 5
"""In a row."""


class Process(Protocol):
    """A worker; see `cli.workers.WorkerProcess`."""

    async def run(self, observer: Observer) -> int:
        """Run it, and pass its notifications on; return its exit code, or the negative number of a signal."""
        ...

    def stop(self) -> None:
        """Ask it to finish the batches in hand, and to end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class _Member(Observer):
    """One worker, as its notifications show it."""

    def __init__(self, process: Process, crew: "Crew", log: Observer) -> None:
        self.process = process
        self.shards: set[Shard] = set()
        """Those that it leads."""
        self.began = monotonic()
        self.silent_s = 0.0
        """How long this process has run without a notification from the worker."""
        self._crew = crew
        self._log = log

    def notify(self, notification: Notification) -> None:
        """Note which shards the worker leads, and pass the notification on."""
        self.silent_s = 0.0
        match notification:
            case Active(checkpoint=checkpoint):
                self.shards.add(checkpoint.shard)
                self._crew.expect(checkpoint.shard.of)
            case Released(shard=shard):
                self.shards.discard(shard)
            case StandingBy(shards=shards):
                self.shards.clear()
                self._crew.expect(shards)
        self._log.notify(notification)
        self._crew.pass_on(notification, self)


class Crew(Observer):
    """Runs a number of workers."""

    def __init__(
        self,
        create: Callable[[], Process],
        workers: int,
        *,
        log: Callable[[int], Observer],
        until_caught_up: bool,
        silence_s: float,
    ) -> None:
        """Start nothing yet; `create` returns a worker to run, and `log` the observer of one, by its number from 1.

        A worker that has sent nothing for `silence_s` is killed.
        """
        self._create = create
        self._workers = workers
        self._log = log
        self._until_caught_up = until_caught_up
        self._silence_s = silence_s
        self._observer: Observer = Observers(())
        self._members: dict[int, _Member] = {}
        self._stopping = asyncio.Event()
        self._stands_by = False
        self._too_many = False

    def notify(self, notification: Notification) -> None:
        """Notify the observer of the crew."""
        self._observer.notify(notification)

    def pass_on(self, notification: Notification, member: _Member) -> None:
        """Pass a notification of a worker on, unless it does not concern the crew as a whole.

        While other workers lead, the crew does not stand by.
        An error about a shard of theirs, or about no shard, does not concern the crew either:
        the worker that had it would not notify that all is well again.
        """
        led = {shard for other in self._members.values() if other is not member for shard in other.shards}
        match notification:
            case Heartbeat():
                return
            case StandingBy() if led:
                return
            case Retrying(shard=shard) if led and (shard in led or shard == WHOLE):  # WHOLE: the worker itself
                return
        self.notify(notification)

    def expect(self, shards: int | None) -> None:
        """Notify, once, of workers that have nothing to do since there are too few shards."""
        if shards is not None and shards < self._workers and not self._too_many:
            self._too_many = True
            self.notify(TooManyWorkers(workers=self._workers, shards=shards))

    def stop(self) -> None:
        """Stop the workers, and make `run` return when they have ended."""
        self._stopping.set()
        for member in self._members.values():
            member.process.stop()

    async def run(self, observer: Observer) -> None:
        """Keep the workers running until stopped, or until each has ended at the end of the stream.

        Raises:
            WorkerFailedError: one ended with an error, or keeps dying soon after its start.
        """
        self._observer = observer
        keeping = [asyncio.create_task(self._keep(number)) for number in range(1, self._workers + 1)]
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait(keeping, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.stop()
            await asyncio.gather(*keeping, return_exceptions=True)
            watch.cancel()
        for kept in keeping:
            kept.result()

    async def _keep(self, number: int) -> None:
        """Run one worker again and again."""
        deaths, pauses_s = 0, _pauses_s()
        while not self._stopping.is_set():
            async with self._member(number) as member:
                code = await member.process.run(member)
            if self._stopping.is_set() or (code == 0 and self._until_caught_up):
                return
            if code > 0:
                raise WorkerFailedError(number, f"ended with exit code {code}; the log says why")
            if monotonic() - member.began > _LONG_ENOUGH_S:
                deaths, pauses_s = 0, _pauses_s()
            deaths += 1
            ending = "ended" if code == 0 else f"was ended by {_signal(-code)}"
            if deaths >= _MOST_DEATHS:
                raise WorkerFailedError(number, f"{ending}, {deaths} times in a row soon after its start")
            self.notify(WorkerDied(worker=number, reason=ending))
            await self._pause(next(pauses_s))

    @asynccontextmanager
    async def _member(self, number: int) -> AsyncIterator[_Member]:
        """Create a worker for the length of a block; the shards that it led are free afterwards."""
        member = self._members[number] = _Member(self._create(), self, self._log(number))
        try:
            yield member
        finally:
            del self._members[number]
            for shard in member.shards:
                self.notify(Released(shard=shard))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _watch(self) -> None:
        """Send heartbeats, notify if no worker leads, and kill the workers that are silent."""
        while True:
            leads = any(member.shards for member in self._members.values())
            if not leads and not self._stands_by:
                self.notify(StandingBy())
            self._stands_by = not leads
            self.notify(Heartbeat())
            for member in self._members.values():
                # Counted, not measured: while this process is paused it hears of no worker.
                member.silent_s += _HEARTBEAT_S
                if member.silent_s >= self._silence_s:
                    member.process.kill()
            await asyncio.sleep(_HEARTBEAT_S)


def _signal(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def _pauses_s() -> Iterator[float]:
    return growing_pauses_s(first_s=0.2, longest_s=10.0, jitter_s=0.2)
