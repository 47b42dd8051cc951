"""A daemon that follows a stream into a database in the test's process, and its recorded notifications."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from projector.app.notifications import (
    Active,
    CaughtUp,
    ChangesLost,
    Committed,
    Heartbeat,
    Listening,
    Notification,
    NotListening,
    Published,
    PublishingFailed,
    PublishingResumed,
    Retrying,
    StandingBy,
    StreamRecognized,
)
from projector.app.observers import Observer
from projector.errors import TransientError
from projector.monitoring.liveness import HEARTBEAT_PERIOD_S
from projector.runtime import Projector
from projector.settings import Settings, load
from tests.support.fixtures import Publish, Query, Rows
from tests.support.patience import PATIENCE_S


class Sampled(Projector):
    """A projector whose monitor samples more often."""

    _sample_period_s = 0.2

    def __init__(self, settings: Settings, observer: Observer, heartbeat_period_s: float) -> None:
        super().__init__(settings, observers=(observer,))
        self._heartbeat_period_s = heartbeat_period_s


class Recorder(Observer):
    """Records the notifications of a daemon, and lets a test wait for them."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()
        self.errors: list[TransientError] = []
        self.parked: list[tuple[int, str]] = []
        self.url = ""
        """Where the daemon answers."""
        self.published = 0
        self.failures: list[Exception] = []
        """Why nothing was published."""
        self.lost_commits = 0
        self.not_listening = ""
        """Why it does not."""
        self._news = asyncio.Event()

    def notify(self, notification: Notification) -> None:
        match notification:
            case Heartbeat():
                self._hear("heartbeat")
            case StandingBy():
                self._hear("standing by")
            case Active(checkpoint=checkpoint):
                self._hear(f"active from {checkpoint.position}")
                self._hear("active")
            case Committed(outcome=outcome):
                self.parked += ((message.position, reason) for message, reason, _ in outcome.dead_letters)
                self._hear("committed")
            case CaughtUp(checkpoint=checkpoint):
                self._hear(f"caught up at {checkpoint.position}")
            case StreamRecognized():
                self._hear("stream recognized")
            case Retrying(error=error):
                self.errors.append(error)
                self._hear("retrying")
            case Listening(url=url):
                self.url = url
                self._hear("listening")
            case NotListening(reason=reason):
                self.not_listening = reason
                self._hear("not listening")
            case _:
                self._notify_published(notification)

    def _notify_published(self, notification: Notification) -> None:
        match notification:
            case Published(changes=changes):
                self.published += changes
                self._hear("published")
            case PublishingFailed(error=failure):
                self.failures.append(failure)
                self._hear("publishing failed")
            case PublishingResumed():
                self._hear("publishing resumed")
            case ChangesLost(commits=commits):
                self.lost_commits += commits
                self._hear("changes lost")

    async def hears(self, what: str, times: int = 1) -> None:
        while self.heard[what] < times:
            self._news.clear()
            await self._news.wait()

    def _hear(self, what: str) -> None:
        self.heard[what] += 1
        self._news.set()


class Running(Protocol):
    """Anything that can be stopped."""

    def stop(self) -> None: ...


class Daemon:
    """One run of the daemon's loop."""

    def __init__(self, projector: Running, run: Coroutine[Any, Any, None], recorder: Recorder) -> None:
        self.recorder = recorder
        self._projector = projector
        self._running = asyncio.create_task(run)

    async def hears(self, what: str, times: int = 1) -> None:
        """Return once the daemon has sent a notification `times` times; fail if it ends before."""
        waiting = asyncio.create_task(self.recorder.hears(what, times))
        await asyncio.wait({waiting, self._running}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            if self._running.done():
                self._running.result()
            raise AssertionError(f"waited for {what!r}, heard {self.recorder.heard}, {self.recorder.errors}")

    async def end(self) -> Recorder:
        """Wait for the end of the run, and raise its error."""
        async with asyncio.timeout(PATIENCE_S):
            await self._running
        return self.recorder

    async def stop(self) -> Recorder:
        """Stop the daemon, and wait for its end."""
        self._projector.stop()
        return await self.end()

    async def abandon(self) -> None:
        """Cancel the daemon, after a failed test."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


@dataclass
class Scene:
    """A stream, a database, and the daemons that a test starts between them."""

    nats_url: str
    database_url: str
    stream: str
    publish: Publish
    ask: Query
    daemons: list[Daemon] = field(default_factory=list)

    def settings(self, url: str | None = None, **settings: Any) -> Settings:
        """Return settings for this stream and this database, or another one."""
        flags: dict[str, Any] = {
            "nats_url": self.nats_url,
            "database_url": url or self.database_url,
            "batch_size": 100,
            "http": "off",
        }
        return load(flags | settings, config=None, fallback=None)

    def follow(
        self,
        *,
        url: str | None = None,
        accept_gap: bool = False,
        until_caught_up: bool = False,
        heartbeat_period_s: float = HEARTBEAT_PERIOD_S,
        **settings: Any,
    ) -> Daemon:
        """Start a daemon."""
        recorder = Recorder()
        projector = Sampled(self.settings(url, **settings), recorder, heartbeat_period_s)
        run = projector.run(accept_gap=accept_gap, until_caught_up=until_caught_up)
        self.daemons.append(Daemon(projector, run, recorder))
        return self.daemons[-1]

    async def fold(self, **settings: Any) -> Recorder:
        """Run a daemon to the end of the stream."""
        return await self.follow(until_caught_up=True, **settings).end()

    async def query(self, sql: str, *arguments: Any) -> Rows:
        """Run a statement in the database."""
        return await self.ask(self.database_url, sql, *arguments)

    async def nobody_leads(self) -> None:
        """Return once the server has noticed that every daemon has ended: until then it keeps their locks."""
        locks = "SELECT FROM pg_locks JOIN pg_database ON oid = database WHERE locktype = 'advisory'"
        async with asyncio.timeout(PATIENCE_S):
            while await self.query(f"{locks} AND datname = current_database()"):  # noqa: ASYNC110 - nothing notifies
                await asyncio.sleep(0.01)

    async def table(self, url: str | None = None) -> Rows:
        """All rows of the table, registers included."""
        return await self.ask(url or self.database_url, "SELECT * FROM endpoint_state ORDER BY endpoint_id")

    async def dead_letters(self) -> Rows:
        """Position and reason of every dead letter."""
        return await self.query("SELECT position, reason FROM dead_letter ORDER BY position")

    async def position(self) -> int:
        """Position of the checkpoint."""
        ((position,),) = await self.query("SELECT position FROM projector_checkpoint")
        return int(position)
