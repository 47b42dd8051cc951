"""How long a batch spends in each stage of the path."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal, TypeAlias, get_args

Stage: TypeAlias = Literal["fetch", "decode", "load", "fold", "save", "commit"]

STAGES: tuple[Stage, ...] = get_args(Stage)
"""Every stage, in the order in which a batch passes them."""

Seconds: TypeAlias = dict[Stage, float]
"""Wall-clock seconds by stage: overlapping stages of two batches count in full in both.

`commit` is the whole transaction, and `save` the part of it in which rows are written.
"""


@contextmanager
def timed(seconds: Seconds, stage: Stage) -> Iterator[None]:
    """Add the duration of a block to a stage."""
    began = perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + perf_counter() - began


def added(one: Seconds, other: Seconds) -> Seconds:
    """Return the sum, stage by stage."""
    return {stage: one.get(stage, 0.0) + other.get(stage, 0.0) for stage in {**one, **other}}
