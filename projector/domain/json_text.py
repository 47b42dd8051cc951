"""JSON texts to Python values that keep every digit of a number."""

import json
from decimal import Decimal
from typing import Any

_INT_DIGITS = 18
"""Python limits how long an integer it parses from text."""


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; numbers with a fraction, an exponent or many digits are Decimals."""
    return json.loads(text, parse_float=Decimal, parse_int=_whole)


def _whole(text: str) -> int | Decimal:
    return int(text) if len(text) <= _INT_DIGITS else Decimal(text)
