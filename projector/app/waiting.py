"""Waits until a published message can be read."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.25
_GROWTH = 1.5


class Waited(NamedTuple):
    """The result of a wait."""

    reached: bool
    position: int
    """Position of the checkpoint."""
    active: Mapping[str, Any] | None
    """The leader, if the position was not reached."""


async def wait_for(position: int, checkpoint: Callable[[], Awaitable[int]], *, timeout_s: float | None) -> int:
    """Poll the checkpoint until it reaches a position or the timeout is over."""
    deadline = None if timeout_s is None else monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while (found := await checkpoint()) < position:
        left_s = pause_s if deadline is None else min(pause_s, deadline - monotonic())
        if left_s <= 0:
            break
        await asyncio.sleep(left_s)
        pause_s = min(pause_s * _GROWTH, _LONGEST_PAUSE_S)
    return found
