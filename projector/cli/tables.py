"""Tables: boxed on a terminal, in ASCII elsewhere, and never truncated."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.box import ASCII, ROUNDED
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from projector.terminal import visible

_FRAME = len("|  ")
"""Width of the frame around a cell; a row has one more character."""


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under the names of their columns, and the number of rows."""
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
    """Print names and values, one pair per line."""
    console, width = Console(soft_wrap=True), max(map(len, pairs))
    for name, value in pairs.items():
        console.print(f"{name:<{width}}  {_cell(value)}", markup=False, highlight=False)


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
