"""How SIGTERM and SIGINT end a command.

The first signal asks the command to stop.
SIGTERM can be repeated, as supervisors do, and has no further effect.
A second SIGINT (Ctrl-C) ends the process at once, even if a server does not answer.
Both are handled even if SIGINT was ignored at the start, as in the background jobs of a script.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import typer

from projector.cli.exit_codes import EXIT_INTERRUPTED

T = TypeVar("T")

_STDOUT = 1
_SHOW_CURSOR = b"\x1b[?25h"


def end_at_once() -> None:
    """End the process without any cleanup."""
    if os.isatty(_STDOUT):
        os.write(_STDOUT, _SHOW_CURSOR)  # a progress bar hides it
    os._exit(EXIT_INTERRUPTED)


@contextmanager
def stopped_by_signals(
    stop: Callable[[], object], *, force: Callable[[], object] = end_at_once
) -> Iterator[list[signal.Signals]]:
    """Call `stop` in the event loop on the first signal, and `force` on a second SIGINT.

    Yields the list of the signals that have arrived.
    The process must end soon after the block, since it ignores SIGTERM from then on.
    """
    loop = asyncio.get_running_loop()
    received: list[signal.Signals] = []

    def on_signal(number: int, _: object) -> None:
        received.append(signal.Signals(number))
        if len(received) == 1:
            loop.call_soon_threadsafe(stop)
        elif received.count(signal.SIGINT) > 1:
            force()

    # Not the handlers of the event loop: closing it would restore the default, and SIGTERM would then kill
    # a process that has stopped cleanly and has not ended yet.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        yield received
    finally:
        # Python removes its handlers before the process ends, but keeps ignoring an ignored signal.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN if received else signal.SIG_DFL)


async def interruptible(work: Awaitable[T]) -> T:
    """Await a coroutine, and cancel it on SIGTERM or SIGINT: it cleans up, and the command exits as interrupted.

    Raises:
        typer.Exit: a signal arrived.
    """
    task = asyncio.ensure_future(work)
    with stopped_by_signals(task.cancel) as received:
        try:
            return await task
        except asyncio.CancelledError:
            if received:
                raise typer.Exit(EXIT_INTERRUPTED) from None
            raise
