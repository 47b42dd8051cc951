"""Runs the daemon as a process: its log, its service manager, its signals."""

import os
from functools import partial

from projector.app.crew import Crew
from projector.app.notifications import Listening, Notification, NotListening, TooManyWorkers, WorkerDied
from projector.app.observers import Observer
from projector.cli.garbage_collection import collect_garbage_less_often
from projector.cli.log import DaemonLog
from projector.cli.signals import stopped_by_signals
from projector.cli.verbosity import Verbosity
from projector.cli.workers import Orders, WorkerProcess
from projector.monitoring.liveness import HEARTBEAT_PERIOD_S
from projector.monitoring.service import ServiceManager
from projector.runtime import Projector
from projector.settings import Settings

_SILENT_PERIODS = 3


async def run_daemon(settings: Settings, *, workers: int = 1, until_caught_up: bool, accept_gap: bool) -> None:
    """Run until SIGTERM or SIGINT, or until the end of the stream, and log why it ended.

    Several workers run in processes of their own, and this one keeps them running.

    Raises:
        FatalError: continuing would be wrong or pointless.
    """
    log = DaemonLog()

    def stop() -> None:
        log.stopping(received[0].name)
        projector.stop()

    with ServiceManager(os.environ) as service:
        projector = Projector(settings, observers=(log if workers == 1 else _CrewLog(log), service))
        with stopped_by_signals(stop) as received:
            log.starting(settings, projector.rules)
            collect_garbage_less_often()
            async with projector:
                with log.errors_logged():
                    if workers == 1:
                        await projector.run(until_caught_up=until_caught_up, accept_gap=accept_gap)
                    else:
                        orders = Orders(
                            settings=settings,
                            until_caught_up=until_caught_up,
                            accept_gap=accept_gap,
                            verbose=Verbosity.on,
                        )
                        await projector.run_crew(_crew(orders, workers))
    log.stopped(received[0].name if received else "the end of the stream")


class _CrewLog(Observer):
    """Logs what no worker logs: each worker has a log of its own."""

    def __init__(self, log: DaemonLog) -> None:
        self._log = log

    def notify(self, notification: Notification) -> None:
        """Log a notification that no worker logs."""
        if isinstance(notification, Listening | NotListening | WorkerDied | TooManyWorkers):
            self._log.notify(notification)


def _crew(orders: Orders, workers: int) -> Crew:
    """Return the worker processes; each line that is logged about one of them names it."""
    logs = [DaemonLog(worker=number) for number in range(1, workers + 1)]
    return Crew(
        partial(WorkerProcess, orders),
        workers,
        log=lambda number: logs[number - 1],
        until_caught_up=orders.until_caught_up,
        silence_s=_SILENT_PERIODS * HEARTBEAT_PERIOD_S,
    )
