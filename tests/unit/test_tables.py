"""Printed tables are complete, and contain no terminal control characters."""

import pytest

from projector.cli import tables

LONG = "x" * 20_000


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow terminal."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")


def test_row_of_any_length_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_rows(("a", "b", "wide"), [(1, LONG, "終"), (2, None, "y")])
    ruler, head, _, first, second, _, count = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in first.split("|")[1:-1]] == ["1", LONG, "終"]
    assert {len(line) for line in (ruler, head, second)} == {len(first) + 1}  # one character is two wide
    assert count == "(2 rows)"


def test_pair_of_any_length_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_pairs({"a": LONG, "longer": b"\xff"})
    assert capsys.readouterr().out == f"a       {LONG}\nlonger  \\xff\n"


@pytest.mark.usefixtures("terminal")
def test_narrow_terminal_wraps_and_truncates_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    endpoint_id = "".join(f"{number:02}" for number in range(32))
    tables.print_rows(("id", "says"), [(endpoint_id, "much to read here")])
    printed = capsys.readouterr().out
    assert "…" not in printed
    _, *rows = [line.split("│")[1].strip() for line in printed.splitlines() if line.count("│") == 3]
    assert "".join(rows) == endpoint_id


NASTY = "a\x1b]0;title\x07\x9b2J\r\n\tb\u202e\ud800 é終"
SEEN = r"a\x1b]0;title\x07\x9b2J\r\n\tb\u202e\ud800 é終"


def test_terminal_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_rows((NASTY,), [(NASTY,), ([NASTY.replace("\ud800", "")],)])
    tables.print_pairs({"name": NASTY})
    printed = capsys.readouterr().out
    assert printed.count(SEEN) == 3
    assert all(line.isprintable() for line in printed.split("\n"))


def test_columns_without_rows_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_rows(("a",), [])
    assert capsys.readouterr().out.splitlines()[-1] == "(0 rows)"
