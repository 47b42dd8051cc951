"""Checks whether Postgres can store a JSON text, before any SQL.

A value stays the text of the event: no number is parsed, so none loses a digit.
"""

import json
import re
from typing import NoReturn

from projector.domain.events import Json
from projector.errors import PoisonError

MAX_DEPTH = 512
"""Levels of arrays and objects: Postgres stores more, but recursive parsers fail at about 1,000."""

# The limits of `numeric`, in which `jsonb` holds a number.
_MAX_SCALE = 16_383
_MAX_WHOLE_DIGITS = 131_072
_MAX_EXPONENT_DIGITS = 7  # an exponent beyond the limits, regardless of the digits before it

_SHOWN = 80

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|([][{}])', re.DOTALL)
"""A string, which may be open at the end, or a bracket outside of strings: the group."""
_ESCAPE = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\(?:u(....)|.)")
"""A surrogate pair, else a single escape; the group is the code of a single one."""
_NUMBER = re.compile(r"-?(\d+)(?:\.(\d+))?(?:[eE]([+-]?)0*(\d*))?")


def checked_json(key: str, text: str | None) -> Json:
    """Return the value of a metadata key as a JSON text, None for null.

    A text that is not JSON becomes a JSON string.

    Raises:
        PoisonError: Postgres cannot store it.
    """
    if text is None:
        return None
    _check_depth(key, text)
    try:
        value = _DECODER.decode(text)
    except _NumberOutOfRangeError as error:
        raise PoisonError(
            "unstorable-json", f"{_named(key)} has a number that Postgres cannot hold: {error}"
        ) from error
    except ValueError:
        return json.dumps(_checked_string(key, text), ensure_ascii=False)
    if value is None:
        return None
    if "\\u" in text:
        _check_escapes(key, text)
    return text


def _check_depth(key: str, text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[1] is not None:
            depth += 1 if found[1] in "[{" else -1
        if depth > MAX_DEPTH:
            raise PoisonError(
                "unstorable-json", f"{_named(key)} is nested deeper than {MAX_DEPTH} levels: {_short(text)}"
            )


def _check_escapes(key: str, text: str) -> None:
    for escape in _ESCAPE.finditer(text):
        code = escape[1]
        if code == "0000":
            raise _nul(key, text)
        if code is not None and "d800" <= code.lower() <= "dfff":
            raise PoisonError(
                "unstorable-text",
                f"{_named(key)} has half of a surrogate pair, which Postgres cannot hold: {_short(text)}",
            )


def _checked_string(key: str, text: str) -> str:
    if "\0" in text:
        raise _nul(key, text)
    return text


def _nul(key: str, text: str) -> PoisonError:
    return PoisonError(
        "unstorable-text", f"{_named(key)} has a NUL character, which Postgres cannot hold: {_short(text)}"
    )


def _named(key: str) -> str:
    return f"the value of metadata key {_short(key)}"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


class _NumberOutOfRangeError(Exception):
    """A number that `numeric` cannot store."""


def _check_number(text: str) -> int:
    """Check a number; the parsed value does not matter, since the text is kept."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise AssertionError(text)
    whole, fraction, sign, exponent = (part or "" for part in found.groups())
    if len(exponent) > _MAX_EXPONENT_DIGITS:
        raise _NumberOutOfRangeError(_short(text))
    scale = len(fraction) - int(f"{sign}{exponent or 0}")
    digits = len((whole + fraction).lstrip("0"))  # none in a zero, whose size does not matter
    if scale > _MAX_SCALE or (digits and digits - scale > _MAX_WHOLE_DIGITS):
        raise _NumberOutOfRangeError(_short(text))
    return 0


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(text)  # NaN and the infinities, which Python accepts and JSON does not have


_DECODER = json.JSONDecoder(parse_int=_check_number, parse_float=_check_number, parse_constant=_refuse_constant)
