"""Running the daemon: the loop, and all who listen to it."""

import os
from collections.abc import Callable
from contextlib import nullcontext

from projector.app.observers import Observer, Observers
from projector.app.supervisor import Supervisor
from projector.cli.log import Journal
from projector.cli.process import stopped_by_signals
from projector.errors import FatalError
from projector.monitoring.monitor import Monitor
from projector.monitoring.service import ServiceManager


async def run(build: Callable[[Observer], Supervisor], journal: Journal, monitor: Monitor | None) -> None:
    """Run a loop until SIGTERM or SIGINT, or until it ends by itself, and say why it ended.

    Raises:
        FatalError: going on would be wrong or pointless.
    """
    with ServiceManager(os.environ) as service, monitor or nullcontext():
        live = build(Observers((journal, service, *(monitor.observers if monitor else ()))))
        with stopped_by_signals(live.stop) as came:
            try:
                await live.run()
            except FatalError as error:
                journal.stopped(str(error))
                raise
            except Exception as error:
                journal.broken(error)
                raise
    journal.stopped(came[0].name if came else "the end of the stream")
