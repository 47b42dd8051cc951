"""Waits in turns of the event loop instead of seconds."""

import asyncio
from collections.abc import Callable

_ENOUGH = 10_000


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until a condition holds; fail after too many turns."""
    for _ in range(_ENOUGH):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"not reached within {_ENOUGH} turns of the loop")
