"""Publishes the log of changes to a stream, beside the folding and at its own pace.

The stream becomes an exact copy of the log, in its order: a message is appended only directly after the one
that precedes it in the log. So neither a crash nor a second publisher loses, doubles or reorders changes.
The cursor in the database may be behind the stream, whose last message tells how far publishing came.
Every error is waited out, and reported once; the daemon goes on folding.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from random import uniform
from time import monotonic

from projector.app.backoff import growing_pauses_s
from projector.app.feed import ChangeLog, ChangeStream, Connections
from projector.app.notifications import ChangesLost, Published, PublishingFailed, PublishingResumed
from projector.app.observers import Observer
from projector.domain.changes import FeedCursor, LoggedChange
from projector.errors import FeedMovedError, ProjectorError, one_line

_SAVE_EVERY_S = 0.2
"""The cursor is written at most this often."""
_POLL_S = 1.0
"""How often the log is read if no notification arrives."""
_SHARED_AFTER = 3
"""After so many refused appends in a row, other programs are taken to publish to the stream as well."""
_REFUSED_TIMES = 20
"""So many are a failure."""
_REFUSED_PAUSE_S = 0.02
_YIELD_FACTOR = 3.0
"""While the folding is behind, publishing rests this many times as long as it works."""
_LONGEST_REST_S = 1.0


class Publishing:
    """Publishes while this daemon leads."""

    def __init__(self, connections: Connections, observer: Observer) -> None:
        """Connect to nothing yet."""
        self._connections = connections
        self._observer = observer
        self._log: ChangeLog | None = None
        self._failure: str | None = None
        self._succeeded = False
        self._finishing = False

    async def run(self, folding_is_behind: Callable[[], bool]) -> None:
        """Publish until cancelled, or after `finish` until everything is published or an error prevents it."""
        pauses_s = _pauses_s()
        while True:
            self._succeeded = False
            try:
                await self._attempt(folding_is_behind)
            except Exception as error:  # noqa: BLE001 - the daemon goes on folding
                self._fail(error)
                if self._finishing:
                    return
            else:
                return
            if self._succeeded:
                pauses_s = _pauses_s()
            await asyncio.sleep(next(pauses_s))

    def finish(self) -> None:
        """Make `run` return at the end of the log."""
        self._finishing = True
        if self._log is not None:
            self._log.wake()

    async def _attempt(self, folding_is_behind: Callable[[], bool]) -> None:
        async with self._connections.log() as log:
            self._log = log
            try:
                async with self._connections.stream() as stream:
                    await self._copy(_Copy(log, stream, self._observer), log, folding_is_behind)
            except Exception as error:
                with suppress(ProjectorError):
                    await log.note(one_line(error))
                raise

    async def _copy(self, copy: "_Copy", log: ChangeLog, folding_is_behind: Callable[[], bool]) -> None:
        while True:
            began = monotonic()
            finishing = self._finishing  # what was committed before that is read by the step
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
    """Copies the log to the stream, over one connection to each."""

    def __init__(self, log: ChangeLog, stream: ChangeStream, observer: Observer) -> None:
        self._log = log
        self._stream = stream
        self._observer = observer
        self._cursor: FeedCursor | None = None
        self._saved: FeedCursor
        self._save_at = 0.0
        self._last: int | None = None
        """Sequence of the last message of the stream; None: unknown."""
        self._refused = 0
        """Appends in a row of which nothing was stored, since the stream had another end."""
        self._shared = False
        """Whether other programs publish to the stream: they would keep a first change from being the next message."""

    async def step(self) -> bool:
        """Publish the next changes; return whether nothing else could be read.

        Raises:
            FeedMovedError: another projector publishes.
            ProjectorError: the log or the stream fails; the next connection continues.
        """
        if self._cursor is None:
            found = await self._log.cursor()
            if found is None:
                return True
            self._cursor = self._saved = found
        if self._last is None:
            self._cursor = await self._resume(self._cursor)
        page = await self._log.read(self._cursor)
        if not await self._append(page.changes):
            return False
        after = self._cursor._replace(place=page.end, committed_at=page.committed_at)
        self._cursor = after._replace(lost_commits=after.lost_commits + page.lost_commits)
        if page.lost_commits:
            await self.save()
            self._observer.notify(ChangesLost(commits=page.lost_commits))
        elif monotonic() >= self._save_at:
            await self.save()
        return page.complete

    async def wait(self) -> None:
        """Wait for the next commit, and write the cursor when it is time."""
        unsaved = self._cursor is not None and self._cursor != self._saved
        await self._log.wait(max(0.0, min(_POLL_S, self._save_at - monotonic())) if unsaved else _POLL_S)

    async def save(self) -> None:
        """Write the cursor, if it has moved."""
        if self._cursor is not None and self._cursor != self._saved:
            await self._log.move(self._saved, self._cursor)
            self._saved = self._cursor
            self._save_at = monotonic() + _SAVE_EVERY_S

    async def _resume(self, cursor: FeedCursor) -> FeedCursor:
        """Return where the stream ends in the log, if it is ahead of the cursor or has lost its tail."""
        tail = await self._stream.tail()
        self._last = tail.last
        newest = tail.newest
        if newest is None or not await self._log.holds(newest):
            return cursor
        truncated = cursor.stream == self._stream.name and tail.last < cursor.stream_seq
        if not truncated and newest.place.order <= cursor.place.order:
            return cursor
        return cursor._replace(
            place=newest.place, committed_at=newest.committed_at, stream=self._stream.name, stream_seq=tail.last
        )

    async def _append(self, changes: Sequence[LoggedChange]) -> bool:
        """Append changes and move the cursor after those that are stored; return whether all are."""
        if not changes or self._cursor is None or self._last is None:
            return True
        appended = await self._stream.append(changes, None if self._shared else self._last)
        self._last = appended.last
        if appended.stored:
            newest = changes[appended.stored - 1]
            self._cursor = self._cursor._replace(place=newest.place, committed_at=newest.committed_at)
            if appended.last is not None:
                self._cursor = self._cursor._replace(stream=self._stream.name, stream_seq=appended.last)
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
