"""Reads single endpoints for the HTTP API: their rows, sessions, changes and dead letters."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from projector.domain.lookup import ChangeCursor, Found, Json, LogState, SearchedLetters, SessionCursor
from projector.queries import explanation
from projector.storage import dialect, version
from projector.storage.change_log import SINCE
from projector.storage.columns import ENDPOINT_COLUMNS
from projector.storage.connection import Connection, connect
from projector.storage.dialect import Dialect
from projector.storage.failures import translated
from projector.storage.wire import set_codecs

_SETTINGS: Mapping[str, str] = {
    **explanation.SETTINGS,
    # A query must slow down neither the daemon nor other clients: a slow one is cancelled.
    "statement_timeout": "2s",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    # Postgres writes the JSON.
    "intervalstyle": "iso_8601",
}
_COMMAND_TIMEOUT_S = 3.0
_IDLE_S = 60.0

_LETTERS_SEARCHED = 1_000
_BYTES_SEARCHED = 32 << 20
_LAST_POSITION = (1 << 63) - 1
_LAST_TIME = 253_402_214_400_000  # 9999-12-31
_HIGHEST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

_VISIBLE = ", ".join(column.name for column in ENDPOINT_COLUMNS if not column.name.endswith("_registers"))

# Ids with a common prefix are neighbours in the order of bytes, which has an index of its own.
# A version is cut, since it may be as long as a message.
SEARCH = """
SELECT row_to_json(found)::text, endpoint_id FROM (
    SELECT endpoint_id, connectivity_status, registration_status, config_status, left(app_version, 100) AS app_version,
           last_event_seq, last_event_at
    FROM endpoint_state WHERE endpoint_id COLLATE "C" >= $1 {below} ORDER BY endpoint_id COLLATE "C" LIMIT $2
) AS found
"""
BELOW = 'AND endpoint_id COLLATE "C" < $3'
STATE = f"""
SELECT row_to_json(found)::text FROM (
    SELECT {_VISIBLE}, {SINCE} AS changes_since FROM endpoint_state WHERE endpoint_id = $1
) AS found
"""
_LOG_STATE = """
SELECT coalesce(to_json(endpoint_change_since())::text, 'null'),
       has_table_privilege('endpoint_change', 'SELECT') AND has_table_privilege('endpoint_session', 'SELECT')
"""
# The view has no key: sessions that began at the same time are told apart by their number.
SESSIONS = """
SELECT row_to_json(found)::text, connected_at FROM (
    SELECT connected_at, disconnected_at, duration, originator, replica, ended_by
    FROM endpoint_session WHERE endpoint_id = $1 AND connected_at <= $2
    ORDER BY connected_at DESC, disconnected_at DESC, originator, replica OFFSET $3 LIMIT $4
) AS found
"""
CHANGES = f"""
SELECT row_to_json(found)::text, committed_at, commit_no, coalesce(position, 0), facet FROM (
    SELECT commit_no, committed_at, facet, verdict, position, occurred_at, stored_at, event, originator, replica,
           before, after
    FROM endpoint_change
    WHERE endpoint_id = $1 AND committed_at >= {SINCE} AND committed_at <= $2
      AND (committed_at, commit_no, coalesce(position, 0), facet) < ($2, $3, $4, $5)
    ORDER BY committed_at DESC, commit_no DESC, coalesce(position, 0) DESC, facet DESC LIMIT $6
) AS found
"""
_AFTER = """
SELECT count(*) FROM endpoint_change
WHERE endpoint_id = $1 AND committed_at = $2 AND (commit_no, coalesce(position, 0), facet) >= ($3, $4, $5)
"""
SIZES = """
SELECT position, length(payload) FROM dead_letter WHERE stream = $1 AND position < $2 ORDER BY position DESC LIMIT $3
"""
LETTERS = """
SELECT row_to_json(found)::text, position FROM (
    SELECT position, state, reason, left(detail, 1000) AS detail, subject, length(payload) AS payload_bytes,
           stored_at, parked_at, attempts, closed_at, note
    FROM dead_letter
    WHERE stream = $1 AND position < $2 AND position >= $3 AND position($4 IN payload) > 0
    ORDER BY position DESC LIMIT $5
) AS found
"""


class EndpointReader:
    """One connection, opened when it is first used, and closed when it has been idle for a minute or failed.

    Each method takes at most a few seconds in read-only transactions. They must not run at the same time.
    """

    def __init__(self, url: str, stream: str, encode: Callable[[str], bytes]) -> None:
        """Open nothing yet; `encode` returns a text as payloads have it."""
        self._url = url
        self._stream = stream
        self._encode = encode
        self._connection: Connection | None = None
        self._dialect: Dialect
        self._closing: asyncio.TimerHandle | None = None

    async def search(self, prefix: str, after: str, limit: int) -> Found[str]:
        """Return endpoints whose id begins with a prefix and comes after an id, in the order of bytes."""
        # The least text after another one has one character more. No id has the character 0.
        arguments: list[Any] = [max(prefix, f"{after}\1") if after else prefix, limit + 1]
        end = _after_all_with(prefix)
        below = "" if end is None else BELOW
        async with self._transaction() as connection:
            rows = await connection.fetch(SEARCH.format(below=below), *arguments, *(() if end is None else (end,)))
        page, is_last = _cut(rows, limit)
        return Found(page, None if is_last else rows[limit - 1][1])

    async def state(self, endpoint_id: str) -> Json | None:
        """Return the visible columns, and since when changes have been recorded; None: no such endpoint."""
        async with self._transaction() as connection:
            found: Json | None = await connection.fetchval(STATE, endpoint_id)
            return found

    async def sessions(
        self, endpoint_id: str, before: SessionCursor | None, limit: int
    ) -> tuple[LogState, Found[SessionCursor]]:
        """Return sessions, the latest first."""
        start, number = before or (_LAST_TIME, 0)
        async with self._transaction() as connection:
            log = await _log_state(connection)
            if not log.is_permitted:
                return log, Found((), None)
            rows = await connection.fetch(SESSIONS, endpoint_id, start, number, limit + 1)
        page, is_last = _cut(rows, limit)
        if is_last:
            return log, Found(page, None)
        last = rows[limit - 1][1]
        same = sum(row[1] == last for row in rows[:limit])
        return log, Found(page, SessionCursor(last, same + (number if start == last else 0)))

    async def changes(
        self, endpoint_id: str, before: ChangeCursor | None, limit: int
    ) -> tuple[LogState, Found[ChangeCursor]]:
        """Return changes, the latest first."""
        async with self._transaction() as connection:
            log = await _log_state(connection)
            if not log.is_permitted:
                return log, Found((), None)
            start = before or ChangeCursor(_LAST_TIME, 0, 0, "")
            rows = await connection.fetch(CHANGES, endpoint_id, *start, limit + 1)
        page, is_last = _cut(rows, limit)
        return log, Found(page, None if is_last else ChangeCursor(*rows[limit - 1][1:]))

    async def count_shown(self, endpoint_id: str, before: ChangeCursor) -> int:
        """Return how many changes of the same time as the cursor are on the pages before it."""
        async with self._transaction() as connection:
            return int(await connection.fetchval(_AFTER, endpoint_id, *before))

    @asynccontextmanager
    async def records(self) -> AsyncIterator[explanation.Records]:
        """Yield what explains an endpoint; any error closes the connection."""
        async with self._connected() as connection:
            yield explanation.Records(connection, self._dialect)

    async def dead_letters(self, endpoint_id: str, before: int | None, limit: int) -> SearchedLetters:
        """Return dead letters in any state whose payload has the id, the newest first.

        A call looks at a bounded number of them, and `next` continues where it ended:
        there is no index of what a payload names.
        """
        start = _LAST_POSITION if before is None else before
        async with self._transaction() as connection:
            sizes = await connection.fetch(SIZES, self._stream, start, _LETTERS_SEARCHED + 1)
            searched = _as_many_as_fit(sizes)
            if not searched:
                return SearchedLetters(Found((), None), 0)
            end = sizes[searched - 1][0]
            rows = await connection.fetch(LETTERS, self._stream, start, end, self._encode(endpoint_id), limit + 1)
        page, is_last = _cut(rows, limit)
        if not is_last:
            last = rows[limit - 1][1]
            return SearchedLetters(Found(page, last), sum(position >= last for position, _ in sizes))
        return SearchedLetters(Found(page, end if searched < len(sizes) else None), searched)

    def close(self) -> None:
        """Disconnect at once."""
        if self._closing is not None:
            self._closing.cancel()
        if self._connection is not None:
            self._connection.terminate()
        self._connection = self._closing = None

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """Begin a read-only transaction; any error closes the connection."""
        async with self._connected() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            await self._dialect.write_json(connection)
            yield connection

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        if self._closing is not None:
            self._closing.cancel()
        try:
            connection = self._connection = self._connection or await self._opened()
            with translated():
                yield connection
        except BaseException:
            self.close()
            raise
        self._closing = asyncio.get_running_loop().call_later(_IDLE_S, self.close)

    async def _opened(self) -> Connection:
        connection = await connect(
            self._url, purpose="endpoints", settings=_SETTINGS, command_timeout_s=_COMMAND_TIMEOUT_S
        )
        try:
            with translated():
                await version.check(connection)
                await set_codecs(connection)
                self._dialect = await dialect.choose(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection


async def _log_state(connection: Connection) -> LogState:
    (row,) = await connection.fetch(_LOG_STATE)
    return LogState(*row)


def _cut(rows: Sequence[Any], limit: int) -> tuple[list[Json], bool]:
    """Return the first columns of a page, and whether there are no more rows than fit on it."""
    return [row[0] for row in rows[:limit]], len(rows) <= limit


def _as_many_as_fit(sizes: Sequence[Any]) -> int:
    """Return how many dead letters, given as position and size, to search: at least one, if there is any."""
    total = 0
    for number, (_, size) in enumerate(sizes[:_LETTERS_SEARCHED]):
        total += size
        if total > _BYTES_SEARCHED and number:
            return number
    return min(len(sizes), _LETTERS_SEARCHED)


def _after_all_with(prefix: str) -> str | None:
    """Return the least text after all that begin with a prefix, in the order of bytes; None: there is none.

    UTF-8 sorts by code point.
    """
    kept = prefix.rstrip(chr(_HIGHEST))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
