"""Tables for people: with lines on a terminal, without elsewhere, and never cut short.

Whoever publishes chooses the text in them, so nothing in it is left to move a terminal.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.box import ASCII, ROUNDED
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_FRAME = len("|  ")
"""What stands around the text of a cell; a row has one character more."""


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows below the names of their columns, and how many there are."""
    console = Console(soft_wrap=True)
    lines = [tuple(map(visible, columns)), *(tuple(map(_cell, row)) for row in rows)]
    if not console.is_terminal:
        console.width = sum(max(map(cell_len, cells)) + _FRAME for cells in zip(*lines, strict=True)) + 1
    table = Table(box=ROUNDED if console.is_terminal else ASCII)
    for column in lines[0]:
        table.add_column(Text(column), no_wrap=not console.is_terminal, overflow="fold")
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    console.print(table)
    console.print(f"({len(rows)} {'row' if len(rows) == 1 else 'rows'})", highlight=False)


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """Print names with their values."""
    console, width = Console(soft_wrap=True), max(map(len, pairs))
    for name, value in pairs.items():
        console.print(f"{name:<{width}}  {_cell(value)}", markup=False, highlight=False)


def visible(text: str) -> str:
    """Return a text with an escape, as Python writes it, for each character that cannot be seen."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def visible_lines(text: str) -> str:
    """Return the same of a text whose lines are to stay lines."""
    return "\n".join(map(visible, text.split("\n")))


def _cell(value: Any) -> str:
    return visible(_text(value))


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat(sep=" ", timespec="milliseconds")
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=_text)
        case bytes():
            return f"\\x{value.hex()}"
    return str(value)
