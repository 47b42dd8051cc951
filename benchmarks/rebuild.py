"""`projector rebuild`, with the lines that tell when it was loaded and when it was done."""

import sys

from benchmarks.program import say
from projector.cli.main import main


def rebuild() -> None:
    """Run the command."""
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
