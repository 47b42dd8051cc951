"""Publishes the logs of changes to a stream, beside the folding and at its own pace.

One daemon publishes the changes of every shard: the one that leads the first shard.
The stream becomes an exact copy of each log, in its order: a message is appended only directly after the latest one.
So neither a crash nor a second publisher loses, duplicates or reorders changes.
The cursors in the database may be behind the stream, whose last messages tell how far publishing got.
Every error is waited out, and reported once; the daemon goes on folding.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from random import uniform
from time import monotonic

from projector.app.backoff import growing_pauses_s
from projector.app.feed import ChangeLog, ChangeStream, Connections
from projector.app.notifications import ChangesLost, Published, PublishingFailed, PublishingResumed
from projector.app.observers import Observer
from projector.domain.changes import ChangeId, FeedCursor, LoggedChange
from projector.errors import BrokerUnavailableError, DatabaseUnavailableError, FeedMovedError, ProjectorError, one_line

_SAVE_EVERY_S = 0.2
"""The cursor is written at most this often."""
_POLL_S = 1.0
"""How often the log is read if no notification arrives."""
_FINAL_ATTEMPTS = 3
"""Failed attempts in a row after which a publisher that is to finish gives up."""
_PASSING = (BrokerUnavailableError, DatabaseUnavailableError)
"""Errors that may pass within seconds."""
_SHARED_AFTER = 3
"""Refused appends in a row after which other programs are assumed to publish to the stream as well."""
_REFUSED_TIMES = 20
"""Refused appends in a row after which publishing fails."""
_REFUSED_PAUSE_S = 0.02
_YIELD_FACTOR = 3.0
"""While the folding is behind, publishing rests this many times as long as it works."""
_LONGEST_REST_S = 1.0


class Publishing:
    """Publishes while this daemon leads."""

    def __init__(self, connections: Connections, observer: Observer, *, shards: int = 1) -> None:
        """Connect to nothing yet."""
        self._connections = connections
        self._observer = observer
        self._shards = shards
        self._log: ChangeLog | None = None
        self._failure: str | None = None
        self._succeeded = False
        self._finishing = False

    async def run(self, folding_is_behind: Callable[[], bool]) -> None:
        """Publish until cancelled, or after `finish` until everything is published or errors prevent it."""
        self._finishing = False
        pauses_s = _pauses_s()
        final_attempts = 0
        while True:
            self._succeeded = False
            try:
                await self._attempt(folding_is_behind)
            except Exception as error:  # noqa: BLE001 - the daemon goes on folding
                self._fail(error)
                final_attempts = self._finishing + (0 if self._succeeded else final_attempts)
                if self._finishing and (final_attempts == _FINAL_ATTEMPTS or not isinstance(error, _PASSING)):
                    return
            else:
                return
            if self._succeeded:
                pauses_s = _pauses_s()
            await asyncio.sleep(next(pauses_s))

    async def run_once(self) -> None:
        """Publish everything that the logs have; raises what prevents it."""
        self._finishing = True
        await self._attempt(lambda: False)

    def finish(self) -> None:
        """Make `run` return at the end of the logs; call it after `run` has begun."""
        self._finishing = True
        if self._log is not None:
            self._log.wake()

    async def _attempt(self, folding_is_behind: Callable[[], bool]) -> None:
        async with self._connections.log() as log:
            self._log = log
            try:
                async with self._connections.stream() as stream:
                    await self._copy(_Copy(log, stream, self._observer, self._shards), log, folding_is_behind)
            except Exception as error:
                with suppress(ProjectorError):
                    await log.note(one_line(error))
                raise

    async def _copy(self, copy: "_Copy", log: ChangeLog, folding_is_behind: Callable[[], bool]) -> None:
        while True:
            began = monotonic()
            finishing = self._finishing  # the step reads everything that was committed before `finish`
            complete = await copy.step()
            await self._succeed(log)
            if complete and finishing:
                await copy.save()
                return
            if complete and not self._finishing:
                await copy.wait()
            elif folding_is_behind():
                await asyncio.sleep(min(_YIELD_FACTOR * (monotonic() - began), _LONGEST_REST_S))

    async def _succeed(self, log: ChangeLog) -> None:
        if not self._succeeded:
            await log.note(None)
        self._succeeded = True
        if self._failure is not None:
            self._failure = None
            self._observer.notify(PublishingResumed())

    def _fail(self, error: Exception) -> None:
        reason = one_line(error)
        if reason != self._failure:
            self._failure = reason
            self._observer.notify(PublishingFailed(error=error))


class _Copy:
    """Copies the logs to the stream, over one connection to each."""

    def __init__(self, log: ChangeLog, stream: ChangeStream, observer: Observer, shards: int) -> None:
        self._log = log
        self._stream = stream
        self._observer = observer
        self._shards = shards
        self._cursors: dict[int, FeedCursor] = {}
        """By shard; a shard has none until its leader has written the first one."""
        self._saved: dict[int, FeedCursor] = {}
        self._save_at = 0.0
        self._last: int | None = None
        """Sequence of the last message of the stream; None: unknown."""
        self._refused = 0
        """Appends in a row of which nothing was stored, since the stream had another end."""
        self._shared = False
        """Whether other programs publish to the stream: they would keep a first change from being the next message."""

    async def step(self) -> bool:
        """Publish the next changes of every shard; return whether nothing else could be read.

        Raises:
            FeedMovedError: another projector publishes.
            ProjectorError: the log or the stream fails; the next connection continues.
        """
        if len(self._cursors) < self._shards:
            await self._find_cursors()
        complete = True
        for shard in sorted(self._cursors):
            if self._last is None:
                await self._resume()
            if not await self._publish_page(shard):
                complete = False
        return complete

    async def wait(self) -> None:
        """Wait for the next commit, and write the cursors when it is time."""
        unsaved = self._cursors != self._saved
        await self._log.wait(max(0.0, min(_POLL_S, self._save_at - monotonic())) if unsaved else _POLL_S)

    async def save(self) -> None:
        """Write the cursors that have moved, all at once, so that those in the database are of one moment too."""
        moves = [
            (self._saved[shard], cursor) for shard, cursor in self._cursors.items() if cursor != self._saved[shard]
        ]
        if moves:
            await self._log.move(moves)
            self._saved = dict(self._cursors)
            self._save_at = monotonic() + _SAVE_EVERY_S

    async def _find_cursors(self) -> None:
        if len(await self._log.cursors()) > len(self._cursors):
            await self.save()
            self._saved = {cursor.shard: cursor for cursor in await self._log.cursors()}
            self._cursors = dict(self._saved)

    async def _resume(self) -> None:
        """Move the cursors to where the stream ends in the logs, if it is ahead of them or has lost its tail."""
        last = await self._stream.last()
        written = [cursor for cursor in self._cursors.values() if cursor.stream == self._stream.name]
        if any(cursor.stream_seq > last for cursor in written):
            await self._go_back(written, last)
        else:
            await self._go_forward(last)
        self._last = last

    async def _go_forward(self, last: int) -> None:
        """Move the cursors to the newest change of each shard in the stream, if it is ahead.

        The cursors are those of one moment: no earlier message is ahead of them, and every later one is.
        """
        cursors = dict(self._cursors)
        sought = set(cursors)
        async with aclosing(self._stream.newest_first()) as changes:
            async for change in changes:
                cursor = cursors.get(change.shard)
                if cursor is None:
                    continue  # of another division of the endpoints
                if change.place.order <= cursor.place.order:
                    break
                if change.shard in sought and not await self._continue_after(change, last):
                    break
                sought.discard(change.shard)
                if not sought:
                    break

    async def _go_back(self, written: Sequence[FeedCursor], last: int) -> None:
        """Move the cursors to the newest change of each shard that the stream has not lost."""
        self._cursors.update((cursor.shard, cursor._replace(stream_seq=last)) for cursor in written)
        sought = {cursor.shard for cursor in written}
        async with aclosing(self._stream.newest_first()) as changes:
            async for change in changes:
                if change.shard in sought:
                    await self._continue_after(change, last)
                    sought.remove(change.shard)
                if not sought:
                    break

    async def _continue_after(self, change: ChangeId, last: int) -> bool:
        """Move the cursor of a shard to a change, if the log has it; return whether it has."""
        held = await self._log.holds(change)
        if held:
            self._cursors[change.shard] = self._cursors[change.shard]._replace(
                place=change.place, committed_at=change.committed_at, stream=self._stream.name, stream_seq=last
            )
        return held

    async def _publish_page(self, shard: int) -> bool:
        """Publish the next changes of a shard; return whether nothing else could be read."""
        page = await self._log.read(self._cursors[shard])
        if not await self._append(shard, page.changes):
            return False
        after = self._cursors[shard]._replace(place=page.end, committed_at=page.committed_at)
        self._cursors[shard] = after._replace(lost_commits=after.lost_commits + page.lost_commits)
        if page.lost_commits:
            await self.save()
            self._observer.notify(ChangesLost(commits=page.lost_commits))
        elif monotonic() >= self._save_at:
            await self.save()
        return page.complete

    async def _append(self, shard: int, changes: Sequence[LoggedChange]) -> bool:
        """Append changes and move the cursor after those that are stored; return whether all are."""
        if not changes:
            return True
        appended = await self._stream.append(changes, None if self._shared else self._last)
        self._last = appended.last
        if appended.stored:
            newest = changes[appended.stored - 1]
            cursor = self._cursors[shard]._replace(place=newest.place, committed_at=newest.committed_at)
            if appended.last is not None:
                cursor = cursor._replace(stream=self._stream.name, stream_seq=appended.last)
            self._cursors[shard] = cursor
            self._refused = 0
            self._observer.notify(Published(changes=appended.stored))
        if isinstance(appended.error, FeedMovedError) and self._refused < _REFUSED_TIMES:
            self._refused += 1
            self._shared = self._shared or self._refused >= _SHARED_AFTER
            await asyncio.sleep(uniform(0, _REFUSED_PAUSE_S))  # noqa: S311 - not a secret
        elif appended.error is not None:
            await self.save()
            raise appended.error
        return appended.stored == len(changes)


def _pauses_s() -> Iterator[float]:
    return growing_pauses_s(first_s=0.1, longest_s=5.0, jitter_s=0.2)
