"""A worker: leads its share of the shards of a projection, beside other workers on this machine and others.

Nothing assigns shards. Each worker knows how many workers there are, takes free shards up to its share,
and gives up what exceeds it: so the shards of a worker that dies are taken over, and one that joins gets its share.
"""

import asyncio
from collections.abc import Callable, Iterator
from random import choice
from typing import Protocol

from projector.app.backoff import growing_pauses_s
from projector.app.notifications import Heartbeat, Notification, Released, Retrying, StandingBy
from projector.app.observers import Observer
from projector.domain.shards import Muster, Shard
from projector.errors import ShardsChangedError, TransientError

_LOOK_EVERY_S = 1.0
_LOOK_AGAIN_S = 0.1
"""After a shard was taken: there may be more."""


class Roster(Protocol):
    """The workers of a projection; see `storage.roster.Roster`.

    It is tested by way of the worker: by `tests.integration.test_workers`, and in memory by `tests.unit.test_worker`.
    """

    async def open(self) -> None:
        """Connect, or reconnect, and register this worker; raises ShardsChangedError."""
        ...

    async def leave(self) -> None:
        """Disconnect, and wait until the registration has ended."""
        ...

    async def look(self) -> Muster:
        """Return how many workers there are, and which shards have no leader."""
        ...


class Leader(Protocol):
    """Leads a shard; see `supervisor.Supervisor`."""

    async def run(self) -> None:
        """Lead, and fold, until stopped; notify that it stands by if another projector leads."""
        ...

    def stop(self) -> None:
        """Finish the batch in hand, and make `run` return."""
        ...


Supervise = Callable[[Shard, Observer], Leader]
"""Returns the leader of a shard."""


class _Led(Observer):
    """A shard that this worker leads or tries to lead."""

    def __init__(self, shard: Shard, supervise: Supervise, observer: Observer, *, is_final: bool) -> None:
        self.shard = shard
        self.is_final = is_final
        """Whether nothing is left to do for the shard once it is at the end of the stream."""
        self._observer = observer
        self._leader = supervise(shard, self)
        self.released = False
        """Whether this worker no longer wants the shard."""
        self.task = asyncio.create_task(self._leader.run())

    def notify(self, notification: Notification) -> None:
        """Pass a notification on; another worker that was faster keeps the shard."""
        if isinstance(notification, StandingBy):
            self.release()
        else:
            self._observer.notify(notification)

    def release(self) -> None:
        """Finish the batch in hand, and give the shard up."""
        self.released = True
        self._leader.stop()


class Worker:
    """Runs a supervisor for each shard that it leads."""

    def __init__(  # noqa: PLR0913 - each is a part
        self,
        roster: Roster,
        supervise: Supervise,
        observer: Observer,
        *,
        shards: int,
        until_caught_up: bool,
        last: int | None = None,
    ) -> None:
        """Take the parts; open nothing yet.

        `last` is a shard that has more to do once every other one is caught up; None: there is no such shard.
        """
        self._roster = roster
        self._supervise = supervise
        self._observer = observer
        self._shards = shards
        self._until_caught_up = until_caught_up
        self._last = last
        self._led: dict[int, _Led] = {}
        self._done: set[int] = set()
        """Shards that this worker has folded to the end of the stream."""
        self._early: set[int] = set()
        """Those of them that have more to do once every other one is done."""
        self._stopping = asyncio.Event()
        self._idle = False

    def stop(self) -> None:
        """Finish the batches in hand, and make `run` return."""
        self._stopping.set()

    async def run(self) -> None:
        """Lead shards until stopped or, if that is wanted, until each has reached the end of the stream.

        Raises:
            FatalError: continuing would be wrong or pointless.
            ShardsChangedError: the endpoints are now divided in another way.
        """
        pauses_s = _pauses_s()
        try:
            while not self._complete:
                try:
                    await self._roster.open()
                    pauses_s = _pauses_s()
                    await self._work()
                except ShardsChangedError:
                    raise
                except TransientError as error:
                    self._collect()
                    if not self._led:  # the sessions of its shards notify of their own errors
                        self._observer.notify(Retrying(error=error))
                        self._idle = False
                    await self._pause(next(pauses_s))
        finally:
            await self._end()
            await self._roster.leave()

    @property
    def _complete(self) -> bool:
        return self._stopping.is_set() or len(self._done) == self._shards

    async def _work(self) -> None:
        while not self._complete:
            muster = await self._roster.look()
            self._collect()
            took = self._adjust(muster)
            self._say_whether_idle()
            await self._pause(_LOOK_AGAIN_S if took else _LOOK_EVERY_S)

    def _adjust(self, muster: Muster) -> bool:
        """Take a free shard, or give one up; return whether one was taken."""
        share = -(-self._shards // max(muster.workers, 1))
        kept = [led for led in self._led.values() if not led.released]
        ended = self._done | {shard for shard in self._early if not self._is_final(shard)}
        free = [shard for shard in muster.free if shard not in self._led and shard not in ended]
        if len(kept) > share:
            kept[-1].release()
        elif len(kept) < share and free:
            number = choice(free)  # noqa: S311 - so that workers that look at the same time take different ones
            shard, is_final = Shard(number, self._shards), self._is_final(number)
            self._led[number] = _Led(shard, self._supervise, self._observer, is_final=is_final)
            return True
        return False

    def _collect(self) -> None:
        """Forget the shards whose supervisors have ended; raises what one of them raised."""
        for number, led in list(self._led.items()):
            if led.task.done():
                del self._led[number]
                self._observer.notify(Released(shard=led.shard))
                led.task.result()
                if self._until_caught_up and not led.released:
                    (self._done if led.is_final else self._early).add(number)

    def _is_final(self, number: int) -> bool:
        """Return whether a shard that is led from now on has nothing left to do at the end of the stream."""
        return number != self._last or len(self._done) == self._shards - 1

    def _say_whether_idle(self) -> None:
        idle = not self._led
        if idle and not self._idle:
            self._observer.notify(StandingBy(shards=self._shards))
        elif idle:
            self._observer.notify(Heartbeat())
        self._idle = idle

    async def _pause(self, seconds: float) -> None:
        """Wait until it is time, a supervisor ends, or the worker is to stop."""
        stop = asyncio.create_task(self._stopping.wait())
        ends = [led.task for led in self._led.values()]
        try:
            await asyncio.wait((stop, *ends), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()

    async def _end(self) -> None:
        """Release every shard, and wait for the batches in hand."""
        for led in self._led.values():
            led.release()
        await asyncio.gather(*(led.task for led in self._led.values()), return_exceptions=True)


def _pauses_s() -> Iterator[float]:
    return growing_pauses_s(first_s=0.1, longest_s=2.0, jitter_s=0.2)
