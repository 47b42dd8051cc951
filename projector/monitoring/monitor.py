"""Watches one daemon from a thread of its own, so that a loop that is stuck is answered for and not with silence."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from time import time
from types import TracebackType
from typing import Self

from projector.app.observers import Observer
from projector.app.ports import Decoder
from projector.app.status import Status
from projector.monitoring.about import About
from projector.monitoring.health import Health
from projector.monitoring.history import History
from projector.monitoring.liveness import HEARTBEAT_PERIOD_S, Liveness
from projector.monitoring.metrics import Metrics
from projector.monitoring.ports import Database, OpenStats
from projector.monitoring.report import Report
from projector.monitoring.sampler import SAMPLE_PERIOD_S, Sampler
from projector.monitoring.server import Address, Server
from projector.monitoring.skew import ClockSkew

_END_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions:
    """How to watch."""

    address: Address
    ready_lag_s: float
    listening: Callable[[str], None]
    """Hears once where the server answers."""
    refused: Callable[[str], None]
    """Hears why it cannot listen; it goes on trying."""
    heartbeat_period_s: float = HEARTBEAT_PERIOD_S
    sample_period_s: float = SAMPLE_PERIOD_S


class Monitor:
    """Listens to a daemon through its observers, looks at stream and database, and answers over HTTP."""

    def __init__(
        self, about: About, decoder: Decoder, open_stats: OpenStats, database: Database, options: MonitorOptions
    ) -> None:
        """Put the pieces together: nothing is opened yet."""
        self._options = options
        self._liveness = Liveness(options.heartbeat_period_s)
        self._history = History(options.sample_period_s)
        self._sampler = Sampler(
            open_stats, database, name=about.stream, rules_version=about.rules, period_s=options.sample_period_s
        )
        health = Health(self._liveness, self._sampler, self._history, ready_lag_s=options.ready_lag_s)
        self._metrics = Metrics(about, self._liveness, health)
        report = Report(about, self._liveness, self._sampler, self._history, health)
        self._server = Server(report, self._metrics.scrape)
        skew = ClockSkew(decoder, self._metrics.note_skew)
        self.observers: tuple[Observer, ...] = (self._liveness, self._history, self._metrics, skew)
        """To be told what the daemon does."""
        self._thread = Thread(target=self._run, name="monitoring", daemon=True)
        self._started = Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._liveness.stop()
        self._started.wait(_END_S)
        if self._loop is not None and self._watching is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._watching.cancel)
        self._thread.join(_END_S)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._watch())

    async def _watch(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watching = asyncio.current_task()
        self._started.set()
        options = self._options
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sampler.run(self._heard, self._metrics.counted))
            tasks.create_task(self._server.serve(options.address, listening=options.listening, refused=options.refused))

    def _heard(self, status: Status | None) -> None:
        self._history.add(time(), status)
        self._metrics.sampled(self._sampler)
