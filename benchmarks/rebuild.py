"""`projector rebuild`, with the lines that tell when it was loaded and when it was done."""

import sys
from importlib import import_module

from benchmarks.program import say
from projector.cli.main import main

_LOADED_BY_THE_COMMAND = (
    "projector.cli.garbage_collection",
    "projector.cli.progress",
    "projector.cli.reports",
    "projector.cli.signals",
    "projector.monitoring.sampler",
    "projector.runtime",
    "projector.app.rebuild",
    "projector.storage.staging",
    "projector.storage.store",
)
"""Modules that it imports when it runs, with the libraries behind them: that is part of its start-up."""


def rebuild() -> None:
    """Run the command."""
    for name in _LOADED_BY_THE_COMMAND:
        import_module(name)
    sys.argv[1:] = ["rebuild"]
    say("active")
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    say("caught up")


if __name__ == "__main__":
    rebuild()
