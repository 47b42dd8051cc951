"""What the measured programs share: their task, and the lines that tell how far they are.

The lines are those of the daemon's log, so that one way of measuring suits all.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import uvloop


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A stretch of a stream to work on."""

    nats_url: str
    database_url: str
    stream: str
    consumer: str
    """Name of a durable consumer that does not exist yet."""
    after: int
    """Position after which to begin."""
    messages: int
    """Number of messages, all of which are in the stream."""


def say(event: str, **facts: float) -> None:
    """Write a line for the measuring process: `active` when ready to begin, `caught up` when done."""
    print(json.dumps({"event": event, **facts}), file=sys.stderr, flush=True)


def run(work: Callable[[Task], Coroutine[Any, Any, None]]) -> None:
    """Do the task that the last argument describes as JSON."""
    task = Task(**json.loads(sys.argv[-1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(task))
