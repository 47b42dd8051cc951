"""Whether the log of changes says what the table was: snapshots while a trial lasts, compared at its end."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Container, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import asyncpg

from projector.storage.columns import FACET_COLUMNS
from projector.storage.tables import endpoint_state

RETENTION = "7d"

_EVERY_S = 0.3
_COMPARED = 20
_VISIBLE = tuple(column.name for column in endpoint_state.columns if not column.name.endswith("_registers"))
_OF_FACETS = tuple(column.name for facet in FACET_COLUMNS for column in facet.columns)
_DEFAULTS = {
    "connectivity_status": "unknown",
    "registration_status": "unknown",
    "config_status": "none",
    "metadata": {},
}

_ROWS = f"SELECT {', '.join(_VISIBLE)} FROM {{table}} ORDER BY endpoint_id"
_COMMITS = "SELECT commits FROM projector_checkpoint"
_MOMENT = """
SELECT max(committed_at) FILTER (WHERE commit_no <= $1) AS at, min(committed_at) FILTER (WHERE commit_no > $1) AS next
FROM endpoint_change
"""
_LOG = """
SELECT endpoint_id, commit_no, position, before, after, previous_event_seq
FROM endpoint_change ORDER BY commit_no, position
"""
_OPEN_SESSIONS = """
SELECT endpoint_id, connected_at, originator, replica
FROM endpoint_session WHERE disconnected_at IS NULL ORDER BY endpoint_id
"""
_CONNECTED = """
SELECT endpoint_id, connected_at, connected_originator, connected_replica
FROM endpoint_state WHERE connectivity_status = 'connected' ORDER BY endpoint_id
"""

Rows = list[tuple[Any, ...]]


class Snapshot(NamedTuple):
    """The table after a number of commits."""

    commits: int
    rows: Rows


class Snapshots:
    """Takes snapshots, each in one transaction."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._connect = connect
        self._taken: list[Snapshot] = []

    @property
    def last(self) -> Snapshot | None:
        """The latest snapshot; None: none has been taken yet."""
        return self._taken[-1] if self._taken else None

    async def take(self, away: tuple[type[Exception], ...]) -> None:
        """Take snapshots until cancelled; while the server is away, try again."""
        while True:
            with suppress(*away):
                connection = await self._connect()
                try:
                    while True:
                        await self._take(connection)
                        await asyncio.sleep(_EVERY_S)
                finally:
                    connection.terminate()
            await asyncio.sleep(_EVERY_S)

    async def _take(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction(isolation="repeatable_read"):
            commits = await connection.fetchval(_COMMITS)
            if commits:
                self._taken.append(Snapshot(commits, await _rows(connection, "endpoint_state")))

    def forget_after(self, commits: int) -> None:
        """Forget the snapshots after a commit number: the restored database will use their numbers again."""
        self._taken = [snapshot for snapshot in self._taken if snapshot.commits <= commits]

    async def verdict(self, damaged: Container[str]) -> list[str]:
        """Say where the log does not give the table: now, or at one of the snapshots.

        What was done by hand to the rows of the `damaged` endpoints is in no log, so their past is not known.
        """
        connection = await self._connect()
        try:
            return [
                *await _unlike_the_table(connection),
                *await _unlike_the_connected(connection),
                *[line for snapshot in self._some() for line in await _unlike(connection, snapshot, damaged)],
            ]
        finally:
            await connection.close()

    def _some(self) -> list[Snapshot]:
        return self._taken[:: -max(1, len(self._taken) // _COMPARED)]  # the latest one is among them


async def _rows(connection: asyncpg.Connection, table: str, *arguments: object) -> Rows:
    return [tuple(row) for row in await connection.fetch(_ROWS.format(table=table), *arguments)]


async def _unlike(connection: asyncpg.Connection, snapshot: Snapshot, damaged: Container[str]) -> list[str]:
    moment = await connection.fetchrow(_MOMENT, snapshot.commits)
    if moment is None or moment["at"] is None or moment["at"] == moment["next"]:
        return []
    then = await _rows(connection, "endpoint_state_at($1)", moment["at"])
    return [
        f"after commit {snapshot.commits} the row was {was}, and the log says {says}"
        for was, says in _pairs(snapshot.rows, then)
        if was != says and (was or says)[0] not in damaged
    ]


def _pairs(one: Rows, other: Rows) -> list[tuple[Any, Any]]:
    ones, others = ({row[0]: row for row in rows} for rows in (one, other))
    return [(ones.get(key), others.get(key)) for key in sorted(ones.keys() | others.keys())]


async def _unlike_the_table(connection: asyncpg.Connection) -> list[str]:
    """Fold the log as a reader would, and compare the result with the table."""
    folded: dict[str, dict[str, Any]] = {}
    created: dict[str, tuple[int, int | None]] = {}
    for endpoint_id, commit_no, position, before, after, previous_seq in await connection.fetch(_LOG):
        if after is None:
            if before is not None:
                folded.pop(endpoint_id)
            continue
        if not previous_seq and created.get(endpoint_id) != (commit_no, position):
            created[endpoint_id] = commit_no, position
            folded[endpoint_id] = {}
        folded[endpoint_id].update(json.loads(after))
    table = await connection.fetch("SELECT endpoint_id, to_jsonb(endpoint_state) FROM endpoint_state")
    found = {endpoint_id: json.loads(row) for endpoint_id, row in table}
    return [
        f"the log gives {given} for {endpoint_id!r}, the table has {has}"
        for endpoint_id in sorted(folded.keys() | found.keys())
        if (given := _plain(folded.get(endpoint_id))) != (has := _plain(found.get(endpoint_id)))
    ]


def _plain(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the columns of the facets that do not have their defaults."""
    if row is None:
        return None
    defaults = {name: _DEFAULTS.get(name) for name in _OF_FACETS}
    return {name: row[name] for name, default in defaults.items() if row.get(name, default) != default}


async def _unlike_the_connected(connection: asyncpg.Connection) -> list[str]:
    sessions = {tuple(row) for row in await connection.fetch(_OPEN_SESSIONS)}
    connected = {tuple(row) for row in await connection.fetch(_CONNECTED)}
    if sessions == connected:
        return []
    return [f"open sessions and connected endpoints differ: {sessions - connected}, {connected - sessions}"]
