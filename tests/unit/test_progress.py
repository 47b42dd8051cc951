"""The progress of a replay where the output is not a terminal."""

from io import StringIO

import pytest
from rich.console import Console

from projector.cli.progress import replay_progress


def test_a_line_has_a_speed_once_there_is_one_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 101.0, 104.0, 105.0])
    monkeypatch.setattr("projector.cli.progress.monotonic", lambda: next(times))
    console = Console(file=StringIO(), force_terminal=False)

    with replay_progress(console) as progress:
        progress(1000, 9000)
        progress(2000, 9000)  # too early for another line
        progress(5000, 9000)
        progress(9000, 9000)

    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().splitlines() == [
        "replayed to position 1000 of 9000",
        "replayed to position 5000 of 9000, 1000 positions/s, 4 s left",
        "replayed to position 9000 of 9000, 1600 positions/s, 0 s left",
    ]


def test_a_replay_that_ends_at_once_shows_no_speed() -> None:
    console = Console(file=StringIO(), force_terminal=False)
    with replay_progress(console) as progress:
        progress(7, 7)
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue() == "replayed to position 7 of 7\n"
