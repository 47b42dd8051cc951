"""Reads the parameters of a request below `/api`, and writes the cursors of its answer."""

import re
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from aiohttp import web

from projector.domain.lookup import ChangeCursor, SessionCursor

MOST_ROWS: Final = 200
_USUAL_ROWS: Final = 50
_PLACE_OF_ID: Final = 3
"""Which part of the path `/api/endpoints/ID/…` is the id."""
_LATEST_MS: Final = 253_402_300_799_999
_LARGEST: Final = (1 << 63) - 1

_NUMBER: Final = re.compile(r"\d{1,19}", re.ASCII)
_SESSION: Final = re.compile(r"(\d{1,15})_(\d{1,9})", re.ASCII)
_CHANGE: Final = re.compile(r"(\d{1,15})_(\d{1,19})_(\d{1,19})_([a-z]{1,20})", re.ASCII)


class BadParameterError(Exception):
    """A parameter has no meaning."""


class Parameters:
    """The parameters of one request.

    Raises:
        BadParameterError: one is unknown, repeated or malformed; the properties raise it as well.
    """

    def __init__(self, request: web.Request, *known: str) -> None:
        """Take the parameters that the route knows."""
        # The router has unquoted the id, but only for display: invalid UTF-8 stays quoted.
        self._path = request.rel_url.raw_path.split("/")
        try:
            pairs = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, errors="strict")
        except UnicodeDecodeError as error:
            raise BadParameterError("a parameter is not percent-encoded UTF-8") from error
        self._given = dict(pairs)
        for name in self._given:
            if name not in known:
                raise BadParameterError(f"there is no parameter {name!r}, only {', '.join(known) or 'none'}")
        if len(self._given) < len(pairs):
            raise BadParameterError("a parameter is given twice")

    @property
    def endpoint_id(self) -> str:
        """The endpoint id in the path."""
        try:
            return _storable("the id", unquote_to_bytes(self._path[_PLACE_OF_ID]).decode())
        except UnicodeDecodeError as error:
            raise BadParameterError("the id is not percent-encoded UTF-8") from error

    def text(self, name: str) -> str:
        """Return a parameter, or an empty text."""
        return _storable(name, self._given.get(name, ""))

    @property
    def limit(self) -> int:
        """How many rows to return at most."""
        given = self._given.get("limit", str(_USUAL_ROWS))
        limit = int(given) if _NUMBER.fullmatch(given) else 0
        if not 1 <= limit <= MOST_ROWS:
            raise BadParameterError(f"limit is a number from 1 to {MOST_ROWS}, not {given!r}")
        return limit

    @property
    def session_cursor(self) -> SessionCursor | None:
        """Where a page of sessions begins."""
        found = self._before(_SESSION)
        return found and SessionCursor(_time(found[1]), int(found[2]))

    @property
    def change_cursor(self) -> ChangeCursor | None:
        """Where a page of changes begins."""
        found = self._before(_CHANGE)
        return found and ChangeCursor(_time(found[1]), _bigint(found[2]), _bigint(found[3]), found[4])

    @property
    def position(self) -> int | None:
        """The position before which a page of dead letters begins."""
        found = self._before(_NUMBER)
        return found and _bigint(found[0])

    def _before(self, form: re.Pattern[str]) -> re.Match[str] | None:
        given = self._given.get("before")
        if given is None:
            return None
        found = form.fullmatch(given)
        if found is None:
            raise _no_cursor(given)
        return found


def session_cursor(cursor: SessionCursor) -> str:
    """Return the `before` of the next page of sessions."""
    return "_".join(map(str, cursor))


def change_cursor(cursor: ChangeCursor) -> str:
    """Return the `before` of the next page of changes."""
    return "_".join(map(str, cursor))


def _time(unix_ms: str) -> int:
    if int(unix_ms) > _LATEST_MS:
        raise _no_cursor(unix_ms)
    return int(unix_ms)


def _bigint(digits: str) -> int:
    number = int(digits)
    if number > _LARGEST:
        raise _no_cursor(digits)
    return number


def _no_cursor(given: str) -> BadParameterError:
    return BadParameterError(f"before is the `next` of an answer, not {given!r}")


def _storable(name: str, text: str) -> str:
    if "\0" in text:
        raise BadParameterError(f"{name} has a NUL character, which no endpoint id has")
    return text
