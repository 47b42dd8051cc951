"""Waiting until something that was published can be read."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.25
_GROWTH = 1.5


class Waited(NamedTuple):
    """What came of it."""

    reached: bool
    position: int
    """Where the checkpoint is."""
    active: Mapping[str, Any] | None
    """The process that works, where the position was not reached."""


async def wait_for(position: int, checkpoint: Callable[[], Awaitable[int]], *, timeout_s: float | None) -> int:
    """Ask where the checkpoint is until it is at a position or past it, or the time is over; return where it is."""
    deadline = None if timeout_s is None else monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while (found := await checkpoint()) < position:
        left_s = pause_s if deadline is None else min(pause_s, deadline - monotonic())
        if left_s <= 0:
            break
        await asyncio.sleep(left_s)
        pause_s = min(pause_s * _GROWTH, _LONGEST_PAUSE_S)
    return found
