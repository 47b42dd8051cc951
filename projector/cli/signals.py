"""How SIGTERM and SIGINT end a command."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM do what SIGINT does: cancel the command, which then cleans up."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[list[signal.Signals]]:
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
