"""Reads what the tables know of one endpoint: its row, its registers, and what was done to it."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from projector.domain.endpoint import FACETS, FacetSet
from projector.domain.explanation import Known, Logged, shown_in
from projector.domain.json_text import parse_json
from projector.domain.moments import time_text
from projector.errors import MomentUnknownError
from projector.storage import checkpoints, dialect, version
from projector.storage.columns import ENDPOINT_ID, FACET_COLUMNS
from projector.storage.connection import Connection
from projector.storage.dialect import Dialect
from projector.storage.failures import translated
from projector.storage.loading import read_row
from projector.storage.wire import set_codecs

SETTINGS: Mapping[str, str] = {**version.READ_ONLY, "timezone": "UTC"}
"""Parameters that a connection needs: times in JSON are in UTC."""

_EVERY_FACET: FacetSet = (1 << len(FACETS)) - 1
_REGISTERS = tuple(facet.registers.name for facet in FACET_COLUMNS)
_VISIBLE = f"to_jsonb(state) - ARRAY{[ENDPOINT_ID.name, *_REGISTERS]}"

_LOG = "SELECT endpoint_change_since(), has_table_privilege('endpoint_change', 'SELECT')"
ROW = f"""
SELECT {_VISIBLE}, endpoint_id, last_event_seq, last_event_at, {", ".join(_REGISTERS)}
FROM endpoint_state AS state WHERE endpoint_id = $1
"""
_SHOWN_AT = f"SELECT {_VISIBLE} FROM {{state_at}} AS state WHERE endpoint_id = $1"
_CHANGES = f"""
SELECT {", ".join(Logged._fields)} FROM endpoint_change
WHERE endpoint_id = $1 AND committed_at >= $2
"""
LATEST = f"""
{_CHANGES} AND committed_at <= coalesce($3::timestamptz, 'infinity')
ORDER BY committed_at DESC, commit_no DESC, coalesce(position, 0) DESC, facet DESC LIMIT $4
"""
SELECTED = f"{_CHANGES} AND (position = ANY ($3) OR occurred_at = ANY ($4))"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator["Records"]:
    """Open a connection for the length of a block; raises NotMigratedError."""
    async with version.opened(url, purpose="explain", settings=SETTINGS) as connection:
        await set_codecs(connection)
        yield Records(connection, await dialect.choose(connection))


class Records:
    """The port `app.explain.Records`."""

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        """Use a connection with `SETTINGS` and the codecs of `wire`."""
        self._connection = connection
        self._dialect = dialect
        self._since: int | None = None

    async def load(self, endpoint_id: str, *, at: int | None, limit: int | None) -> Known:
        """Return what is known of an endpoint, at present or at a moment (Unix ms), with its latest changes.

        Raises:
            MomentUnknownError: the log does not go back so far.
        """
        with translated():
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                await self._dialect.write_json(self._connection)
                return await self._load(endpoint_id, at, limit)

    async def find(self, endpoint_id: str, positions: Collection[int], times: Collection[int]) -> list[Logged]:
        """Return the changes of an endpoint by events at some positions or times (Unix ms)."""
        if self._since is None:
            return []
        with translated():
            found = await self._connection.fetch(SELECTED, endpoint_id, self._since, list(positions), list(times))
        return [_logged(row) for row in found]

    async def _load(self, endpoint_id: str, at: int | None, limit: int | None) -> Known:
        checkpoint = await checkpoints.read(self._connection)
        ((since, is_permitted),) = await self._connection.fetch(_LOG)
        self._since = since = since if is_permitted else None
        if at is not None and is_permitted and (since is None or at < since):
            raise MomentUnknownError(at=str(time_text(at)), since=None if since is None else str(time_text(since)))
        row = await self._connection.fetchrow(ROW, endpoint_id)
        shown = None if row is None else row[0]
        if at is not None:
            shown_at = _SHOWN_AT.format(state_at=self._dialect.state_at)
            shown = await self._connection.fetchval(shown_at, endpoint_id, at)
        changes = [] if since is None else await self._connection.fetch(LATEST, endpoint_id, since, at, limit)
        return Known(
            revision="" if checkpoint is None else checkpoint.rules.revision,
            since=since,
            is_permitted=is_permitted,
            endpoint=None if row is None else read_row(_EVERY_FACET, *row[1:]),
            shown=None if shown is None else shown_in(_parsed(shown)),
            changes=[_logged(change) for change in changes],
        )


def _logged(row: asyncpg.Record) -> Logged:
    change = Logged(*row)
    return change._replace(before=_parsed(change.before), after=_parsed(change.after))


def _parsed(json: Any) -> Any:
    """Return the value of a column of type jsonb, which `wire` reads as bytes."""
    return None if json is None else parse_json(json.decode())
