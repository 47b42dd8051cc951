"""Runs the daemon as a process: its log, its service manager, its signals."""

import os

from projector.cli.garbage_collection import collect_garbage_less_often
from projector.cli.log import DaemonLog
from projector.cli.signals import stopped_by_signals
from projector.monitoring.service import ServiceManager
from projector.runtime import Projector
from projector.settings import Settings


async def run_daemon(settings: Settings, *, until_caught_up: bool, accept_gap: bool) -> None:
    """Run until SIGTERM or SIGINT, or until the end of the stream, and log why it ended.

    Raises:
        FatalError: continuing would be wrong or pointless.
    """
    log = DaemonLog()

    def stop() -> None:
        log.stopping(received[0].name)
        projector.stop()

    with ServiceManager(os.environ) as service:
        projector = Projector(settings, observers=(log, service))
        with stopped_by_signals(stop) as received:
            log.starting(settings, projector.rules)
            collect_garbage_less_often()
            async with projector:
                with log.errors_logged():
                    await projector.run(until_caught_up=until_caught_up, accept_gap=accept_gap)
    log.stopped(received[0].name if received else "the end of the stream")
