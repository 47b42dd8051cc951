"""How an unexpected error is reported."""

import sys

import pytest
import typer

from projector.cli import main as cli
from projector.cli.verbosity import Verbosity


@pytest.mark.parametrize("verbose", [False, True])
def test_unexpected_error_is_one_line_and_not_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, verbose: bool
) -> None:
    broken = typer.Typer(pretty_exceptions_enable=False)

    @broken.command()
    def run() -> None:
        raise ValueError("no\nsuch\x1b]0;title\x07")

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr(Verbosity, "on", verbose)
    monkeypatch.setattr(sys, "argv", ["projector"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    *traceback, complaint = capsys.readouterr().err.splitlines()
    assert ended.value.code == 3
    assert (
        complaint == r"error: unexpected ValueError: no such\x1b]0;title\x07; please report it, --verbose shows where"
    )
    assert (traceback[:1] == ["Traceback (most recent call last):"]) is verbose
    assert verbose or not traceback
    assert all(line.isprintable() for line in traceback)
