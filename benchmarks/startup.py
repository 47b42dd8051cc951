"""How much processor time the command line takes to start, relative to the libraries that any such program loads."""

import os
import resource
import subprocess
import sys
from statistics import median

_RUNS = 9
_BASE = ("-c", "import asyncio, typer, rich.table")
_LIMITS = {"--version": 1.6, "--help": 2.2, "run --help": 2.5}
"""The most that a command may take, in multiples of the base."""


def _processor_s(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        (sys.executable, *arguments), check=True, stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "80"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Print medians; exit 1 if a command takes more than its limit."""
    _processor_s(*_BASE)  # so that the files are in memory and compiled
    base = median(_processor_s(*_BASE) for _ in range(_RUNS))
    print(f"{base * 1000:6.0f} ms  1.00  python {' '.join(_BASE)}")
    missed = False
    for command, limit in _LIMITS.items():
        arguments = ("-m", "projector", *command.split())
        _processor_s(*arguments)
        took = median(_processor_s(*arguments) for _ in range(_RUNS))
        missed |= took > limit * base
        print(f"{took * 1000:6.0f} ms  {took / base:.2f}  projector {command} (limit {limit})")
    sys.exit(missed)


if __name__ == "__main__":
    main()
