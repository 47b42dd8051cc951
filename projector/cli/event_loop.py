"""Runs a command's coroutine."""

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], *, fast: bool = False) -> T:
    """Run a coroutine to its end; `fast` uses uvloop, which takes longer to load than a short command lasts."""
    import asyncio

    if fast:
        import uvloop

        loop_factory = uvloop.new_event_loop
    else:
        loop_factory = None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)
