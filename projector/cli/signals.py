"""How SIGTERM and SIGINT end a command.

Both are handled even if SIGINT was ignored at the start, as in the background jobs of a script.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import typer

from projector.cli.exit_codes import EXIT_INTERRUPTED

T = TypeVar("T")


@contextmanager
def stopped_by_signals(stop: Callable[[], object]) -> Iterator[list[signal.Signals]]:
    """Call `stop` on SIGTERM and SIGINT; a second signal ends the process at once.

    Yields a list that holds the signal once it has arrived.
    """
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        for handled in signals:
            loop.remove_signal_handler(handled)
        stop()

    for number in signals:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield received
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


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
