"""Serves health from its own thread, so that a blocked event loop is reported."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from time import time
from types import TracebackType
from typing import Self

from projector.app.notifications import Notification
from projector.app.observers import Observer
from projector.app.ports import Decoder
from projector.app.status import Status
from projector.monitoring.about import About
from projector.monitoring.answers import Answers
from projector.monitoring.api import Api
from projector.monitoring.health import Health
from projector.monitoring.history import History
from projector.monitoring.liveness import Liveness
from projector.monitoring.metrics import Metrics
from projector.monitoring.ports import Readers
from projector.monitoring.reasons import Reasons
from projector.monitoring.sampler import Sampler
from projector.monitoring.server import Address, Server
from projector.monitoring.skew import ClockSkew

_END_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions:
    """How to monitor a daemon."""

    address: Address
    ready_lag_s: float
    heartbeat_period_s: float
    """The daemon is unhealthy after two of these without a heartbeat."""
    sample_period_s: float
    observer: Observer
    """Notified, on the daemon's event loop, of what the HTTP server does."""


class Monitor:
    """Observes a daemon, samples stream and database, and serves the results over HTTP.

    Enter it on the daemon's event loop.
    """

    def __init__(self, about: About, decoder: Decoder, readers: Readers, options: MonitorOptions) -> None:
        """Open nothing yet."""
        self._options = options
        self._liveness = Liveness(options.heartbeat_period_s)
        self._history = History(options.sample_period_s)
        self._sampler = Sampler(
            readers.open_stats,
            readers.database,
            name=about.stream,
            rules_version=about.rules,
            period_s=options.sample_period_s,
        )
        health = Health(self._liveness, self._sampler, self._history, ready_lag_s=options.ready_lag_s)
        self._metrics = Metrics(about, self._liveness, health)
        answers = Answers(about, self._liveness, self._sampler, self._history, health)
        api = Api(readers.endpoints, Reasons(readers.endpoints, readers.names_in))
        self._server = Server(answers, api, self._metrics.scrape)
        skew = ClockSkew(decoder, self._metrics.note_skew)
        self.observers: tuple[Observer, ...] = (self._liveness, self._history, self._metrics, skew)
        """Those that receive the notifications of the daemon."""
        self._thread = Thread(target=self._run, name="monitoring", daemon=True)
        self._started = Event()
        self._daemon_loop: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._daemon_loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._liveness.stop()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """Cancel the thread's task, and wait for the thread."""
        self._started.wait(_END_S)
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # its event loop is closed: it ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(_END_S)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._started.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sampler.run(self._sampled, self._metrics.counted))
            tasks.create_task(self._server.serve(self._options.address, self._notify))

    def _sampled(self, status: Status | None) -> None:
        self._history.add(time(), status)
        self._metrics.sampled(self._sampler)

    def _notify(self, notification: Notification) -> None:
        """Notify the observer on the daemon's event loop, where every observer is called."""
        if self._daemon_loop is not None:
            with suppress(RuntimeError):  # the daemon's event loop is closed
                self._daemon_loop.call_soon_threadsafe(self._options.observer.notify, notification)
