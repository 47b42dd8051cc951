"""Converts JSON texts to Python values and back, so that a number keeps every digit."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

_INT_DIGITS = 18
"""Python limits the length of the integers that it parses from text."""


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; numbers with a fraction, an exponent or many digits are Decimals."""
    return json.loads(text, parse_float=Decimal, parse_int=_whole)


def _whole(text: str) -> int | Decimal:
    return int(text) if len(text) <= _INT_DIGITS else Decimal(text)


def write_json(value: Any, *, ascii_only: bool = True) -> str:
    """Return the JSON text of a value; times are texts in ISO 8601 with milliseconds."""
    match value:
        case dict():
            pairs = (
                f"{json.dumps(name, ensure_ascii=ascii_only)}: {write_json(one, ascii_only=ascii_only)}"
                for name, one in value.items()
            )
            return f"{{{', '.join(pairs)}}}"
        case list() | tuple():
            return f"[{', '.join(write_json(one, ascii_only=ascii_only) for one in value)}]"
        case datetime():
            return f'"{value.isoformat(timespec="milliseconds")}"'
        case Decimal():
            return str(value)
    return json.dumps(value, ensure_ascii=ascii_only)
