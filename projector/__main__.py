"""Run the command line as `python -m projector`."""

from projector.cli.main import main

main()
