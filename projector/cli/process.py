"""What a long-running process needs: less garbage collection, and an end when it is told to."""

import asyncio
import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_THRESHOLDS = (200_000, 50, 100)
"""Allocations until a young collection, young ones until a middle one, middle ones until a full one."""


def collect_garbage_less_often() -> None:
    """Spare the folding most of the cyclic garbage collection.

    It makes many objects and hardly a cycle among them:
    looking for cycles as often as by default took a third of all the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no cyclic garbage for the length of a block.

    That is for work which holds millions of objects and comes to an end before a cycle here and there has added up:
    each collection would go through most of what is held.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM do what SIGINT does for the length of a block: end the work, and tidy up behind it."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[list[signal.Signals]]:
    """Call `stop` on SIGTERM and SIGINT for the length of a block; a second signal ends the process at once.

    Yields a list that has the signal once it has come.
    """
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    came: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        came.append(number)
        for handled in signals:
            loop.remove_signal_handler(handled)
        stop()

    for number in signals:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield came
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
