"""One worker of `projector run --workers`, started by `workers.WorkerProcess`; not for use by hand."""

import asyncio
import os
import pickle
import sys
from dataclasses import replace
from threading import Thread

from projector.app.notifications import Notification, PublishingFailed, Received
from projector.app.observers import Observer
from projector.cli import event_loop, log
from projector.cli.exit_codes import EXIT_FATAL
from projector.cli.garbage_collection import collect_garbage_less_often
from projector.cli.signals import stopped_by_signals
from projector.cli.workers import LENGTH_BYTES, Orders, framed, length_of
from projector.errors import ProjectorError, one_line
from projector.runtime import Projector

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_SAMPLED = 8
"""Messages of a batch that are reported: the clocks of their replicas are compared."""


class _Report(Observer):
    """Sends notifications to the process that started this one."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def notify(self, notification: Notification) -> None:
        """Send a notification."""
        data = memoryview(framed(_sendable(notification)))
        try:
            while data:
                data = data[os.write(self._pipe, data) :]
        except BrokenPipeError:
            return  # the process that started this one has ended, and this one is about to


def _sendable(notification: Notification) -> Notification:
    """Return a notification in a form that is not large, and that the receiver can unpickle."""
    match notification:
        case Received(messages=messages):
            return Received(messages=messages[:: -(-len(messages) // _SAMPLED)])
        case PublishingFailed(error=error) if not isinstance(error, ProjectorError):
            # The receiver might not be able to unpickle an error of a library.
            return PublishingFailed(error=ProjectorError(f"{type(error).__name__}: {one_line(error)}"))
    return notification


def _receive_orders() -> Orders:
    length = length_of(sys.stdin.buffer.read(LENGTH_BYTES))
    orders: Orders = pickle.loads(sys.stdin.buffer.read(length))  # noqa: S301 - from the process that started this one
    return replace(orders, settings=replace(orders.settings, http="off"))


async def _work(orders: Orders, reports: int) -> None:
    daemon_log = log.DaemonLog()
    projector = Projector(orders.settings, observers=(_Report(reports),))
    loop = asyncio.get_running_loop()

    def wait_for_the_end() -> None:
        """Stop when the process that started this one ends: it writes nothing more, so a read returns only then."""
        os.read(_STDIN, 1)
        loop.call_soon_threadsafe(projector.stop)

    with stopped_by_signals(projector.stop):
        Thread(target=wait_for_the_end, name="parent", daemon=True).start()
        collect_garbage_less_often()
        async with projector:
            with daemon_log.errors_logged():
                await projector.run(until_caught_up=orders.until_caught_up, accept_gap=orders.accept_gap)


def main() -> None:
    """Work as ordered until SIGTERM, or until the process that started this one ends."""
    reports = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)  # what is printed must not be taken for a report
    orders = _receive_orders()
    log.configure(verbose=orders.verbose)
    try:
        event_loop.run(_work(orders, reports), fast=True)
    except Exception:  # noqa: BLE001 - it is logged
        sys.exit(EXIT_FATAL)


if __name__ == "__main__":
    main()
