"""The JSON answers below `/api`, which query the database about single endpoints."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web

from projector.domain.lookup import Found, Json, LogState
from projector.errors import ProjectorError
from projector.monitoring import parameters
from projector.monitoring.parameters import BadParameterError, Parameters
from projector.monitoring.ports import Endpoints
from projector.monitoring.reasons import Reasons

_ANSWER_S = 3.0
"""How long an answer may take, including the wait for those before it."""
_MOST_WAITING = 8

_OFF: Final = "changes are not recorded: set PROJECTOR_CHANGES to how long to keep them, such as 7d, and restart"
_NOT_PERMITTED: Final = (
    "the role may not read endpoint_change and endpoint_session: grant the privileges that docs/how-to/connect.md lists"
)


class _Refusal(Exception):  # noqa: N818 - an answer, not a fault of the program
    """Why there is no answer, as a status code and as JSON."""

    def __init__(self, code: int, error: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.answer = {"error": error, "detail": detail}


class Api:
    """Answers one request after the other, over the one connection of `endpoints`."""

    def __init__(self, endpoints: Endpoints, reasons: Reasons) -> None:
        """Connect to nothing yet."""
        self._endpoints = endpoints
        self._reasons = reasons
        self._turn = asyncio.Lock()
        self._waiting = 0

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; an id is percent-encoded, so it is one segment of the path."""
        return [
            web.get("/api/endpoints", _answering(self._search)),
            web.get("/api/endpoints/{id:[^/]+}", _answering(self._state)),
            web.get("/api/endpoints/{id:[^/]+}/sessions", _answering(self._sessions)),
            web.get("/api/endpoints/{id:[^/]+}/changes", _answering(self._changes)),
            web.get("/api/endpoints/{id:[^/]+}/dead-letters", _answering(self._dead_letters)),
            web.get("/api{rest:(/.*)?}", _answering(_unknown)),
        ]

    def close(self) -> None:
        """Disconnect."""
        self._endpoints.close()

    async def _search(self, request: web.Request) -> Any:
        given = Parameters(request, "prefix", "limit", "after")
        async with self._connection() as endpoints:
            found = await endpoints.search(given.text("prefix"), given.text("after"), given.limit)
        return {"endpoints": _rows(found), "next": found.next}

    async def _state(self, request: web.Request) -> Any:
        endpoint_id = Parameters(request).endpoint_id
        async with self._connection() as endpoints:
            found = await endpoints.state(endpoint_id)
            if found is None:
                raise _no_such(endpoint_id)
            return _read(found) | await self._reasons.of_columns(endpoint_id)

    async def _sessions(self, request: web.Request) -> Any:
        given = Parameters(request, "limit", "before")
        endpoint_id, before = given.endpoint_id, given.session_cursor
        async with self._connection() as endpoints:
            log, found = await endpoints.sessions(endpoint_id, before, given.limit)
            await self._check_exists(endpoint_id, found)
        following = None if found.next is None else parameters.session_cursor(found.next)
        return {"endpoint_id": endpoint_id, **_described(log), "sessions": _rows(found), "next": following}

    async def _changes(self, request: web.Request) -> Any:
        given = Parameters(request, "limit", "before")
        endpoint_id, before = given.endpoint_id, given.change_cursor
        async with self._connection() as endpoints:
            log, found = await endpoints.changes(endpoint_id, before, given.limit)
            await self._check_exists(endpoint_id, found)
            reasons = await self._reasons.of_changes(endpoint_id, before, found.rows)
        explained = [_read(row) | {"reason": reason} for row, reason in zip(found.rows, reasons, strict=True)]
        following = None if found.next is None else parameters.change_cursor(found.next)
        return {"endpoint_id": endpoint_id, **_described(log), "changes": explained, "next": following}

    async def _dead_letters(self, request: web.Request) -> Any:
        given = Parameters(request, "limit", "before")
        endpoint_id, before = given.endpoint_id, given.position
        async with self._connection() as endpoints:
            found, searched = await endpoints.dead_letters(endpoint_id, before, given.limit)
            await self._check_exists(endpoint_id, found)
        following = None if found.next is None else str(found.next)
        return {
            "endpoint_id": endpoint_id,
            "dead_letters": _rows(found),
            "searched": searched,
            "next": following,
        }

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Endpoints]:
        """Wait for the connection, and use it for at most what is left of the time."""
        if self._waiting >= _MOST_WAITING:
            raise _Refusal(503, "busy", f"{_MOST_WAITING} requests are waiting for the database; ask again later")
        self._waiting += 1
        try:
            async with asyncio.timeout(_ANSWER_S), self._turn:
                yield self._endpoints
        except TimeoutError as error:
            detail = f"Postgres did not answer within {_ANSWER_S:g} s"
            raise _Refusal(503, "database-unavailable", detail) from error
        except ProjectorError as error:
            raise _Refusal(503, "database-unavailable", str(error)) from error
        finally:
            self._waiting -= 1

    async def _check_exists(self, endpoint_id: str, found: Found[Any]) -> None:
        """Refuse to answer about an endpoint that has neither what was asked for nor a row."""
        if not found.rows and found.next is None and await self._endpoints.state(endpoint_id) is None:
            raise _no_such(endpoint_id)


def _answering(
    handler: Callable[[web.Request], Awaitable[Any]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            return _json(200, await handler(request))
        except BadParameterError as error:
            return _json(400, {"error": "bad-request", "detail": str(error)})
        except _Refusal as refusal:
            return _json(refusal.code, refusal.answer)

    return answer


async def _unknown(_: web.Request) -> Any:
    raise _Refusal(
        404,
        "not-found",
        "there are /api/endpoints and /api/endpoints/ID, ID/sessions, ID/changes and ID/dead-letters, "
        "with a percent-encoded ID",
    )


def _no_such(endpoint_id: str) -> _Refusal:
    return _Refusal(404, "not-found", f"no event has named an endpoint {endpoint_id!r}")


def _described(log: LogState) -> dict[str, Any]:
    if not log.is_permitted:
        return {"changes_since": None, "changes_state": "not-permitted", "detail": _NOT_PERMITTED}
    if log.since == "null":
        return {"changes_since": None, "changes_state": "off", "detail": _OFF}
    return {"changes_since": msgspec.Raw(log.since), "changes_state": "on", "detail": None}


def _read(row: Json) -> dict[str, Any]:
    """Return the columns of a row as raw JSON, so that numbers keep all digits."""
    return msgspec.json.decode(row, type=dict[str, msgspec.Raw])


def _rows(found: Found[Any]) -> list[msgspec.Raw]:
    return [msgspec.Raw(row) for row in found.rows]


def _json(code: int, answer: Any) -> web.Response:
    return web.Response(status=code, body=msgspec.json.encode(answer), content_type="application/json", charset="utf-8")
