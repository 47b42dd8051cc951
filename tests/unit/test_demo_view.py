from io import StringIO
from pathlib import Path

from rich.console import Console

from projector.app.notifications import Listening, NotListening
from projector.app.status import Status
from projector.dev.view import Meter, View
from projector.domain.summary import Census

PAGE = "http://127.0.0.1:9464"
STATUS = Status(
    stream="S",
    stream_first_seq=1,
    stream_last_seq=5000,
    checkpoint_seq=4999,
    lag_messages=1,
    lag_seconds=0.01,
    last_event_stored_at=None,
    last_commit_at=None,
    endpoints=1000,
    dead_letters=0,
    dead_letters_by_reason={},
    skipped={},
    changes_since=None,
    shards=(),
    publish=None,
    projection_version=1,
    active=None,
    rebuild=None,
)
CENSUS = Census(
    by_status={"connected": 600, "disconnected": 400},
    by_version={f"meter-1.{minor}.0": 100 for minor in range(10)},
)


def test_a_usual_terminal_shows_the_address_of_the_page_and_how_to_end_the_demo(tmp_path: Path) -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=24)
    view = View(console, tmp_path / "projector.toml")
    with view:
        view.notify(Listening(url=PAGE))
        view.show(STATUS, CENSUS, Meter())
        drawn = screen.getvalue()  # what the end of the view prints is not cut to the height of the terminal
    assert "projector sql " in drawn
    assert PAGE in drawn
    assert "Ctrl-C ends everything" in drawn


def test_an_address_that_is_in_use_is_not_shown_as_that_of_a_page(tmp_path: Path) -> None:
    screen = StringIO()
    view = View(Console(file=screen, width=80), tmp_path / "projector.toml")
    view.notify(NotListening(reason="127.0.0.1:9464: Address already in use"))
    assert screen.getvalue() == ("no page in a browser:  127.0.0.1:9464: Address already in use; the daemon retries\n")
