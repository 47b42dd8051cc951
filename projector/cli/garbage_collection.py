"""Controls when a command collects cyclic garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (200_000, 50, 100)
"""Allocations per young collection, young collections per middle one, and middle collections per full one."""


def collect_garbage_less_often() -> None:
    """Make cyclic garbage collection rare, for the daemon.

    Folding creates many objects and hardly any cycles:
    with the default thresholds, the search for cycles took a third of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no cyclic garbage within the block, for a replay.

    A replay holds millions of objects, and each collection would visit most of them;
    it ends before its few cycles take much memory.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
