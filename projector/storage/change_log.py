"""Writes the log of changes, `endpoint_change`: what was done to `endpoint_state`, in the same transaction."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from projector.domain.endpoint import FACETS, Change
from projector.domain.explanation import CORRECTED
from projector.domain.facets import Verdict
from projector.domain.messages import Message
from projector.domain.moments import time_text
from projector.storage import version
from projector.storage.checkpoints import PROJECTION, Commit
from projector.storage.columns import FACET_COLUMNS, TIME, Row
from projector.storage.connection import Connection
from projector.storage.tables import endpoint_change

CHANNEL = "endpoint_change"
"""Every commit with changes notifies this channel, with its number."""

SINCE = f"""
(SELECT CASE WHEN count(changes_since) = count(*) THEN max(changes_since) END
 FROM projector_checkpoint WHERE projection = '{PROJECTION}')
"""
"""What `endpoint_change_since()` returns; a worker of Citus could not execute the function."""

COLUMNS = tuple(column.name for column in endpoint_change.columns)
_NO_MESSAGE = (None,) * 6
_COPIED_AT_ONCE = 10_000  # rows: one event may name 100,000 endpoints, and rows are in memory while they are sent

_MAINTAIN = "SELECT endpoint_change_maintain($1)"
_FOR_EVER = timedelta(days=36_500)
_IS_ON = "SELECT endpoint_change_since() IS NOT NULL"
_NOTIFY = "SELECT pg_notify($1, $2)"
# The daemon's setting decides; if it decides as before, nothing is written.
_SWITCH = """
UPDATE projector_checkpoint SET changes_since =
    CASE WHEN $3 THEN date_trunc('milliseconds', greatest(clock_timestamp(), advanced_at)) END
WHERE projection = $1 AND shard = $2 AND (changes_since IS NOT NULL) <> $3
"""


async def prepare(connection: Connection, retention: timedelta) -> None:
    """Make the partitions of the next days, and drop those that are wholly older than the retention."""
    await connection.execute(_MAINTAIN, retention)


async def maintain(url: str, retention: timedelta) -> None:
    """Do what `prepare` does, over a connection of its own."""
    async with version.opened(url, purpose="partitions", settings={}) as connection:
        await prepare(connection, retention)


async def make_partitions(connection: Connection) -> None:
    """Make the partitions of the next days, and drop none: how long changes are kept is for the daemon to say."""
    await connection.execute(_MAINTAIN, _FOR_EVER)


async def is_on(connection: Connection) -> bool:
    """Return whether the latest commit logged its changes."""
    return bool(await connection.fetchval(_IS_ON))


async def switch(connection: Connection, shard: int, *, on: bool) -> None:
    """Note that every commit of a shard from now on writes its changes, or that none does."""
    await connection.execute(_SWITCH, PROJECTION, shard, on)


async def write(
    connection: Connection, commit: Commit, changes: Sequence[Change], messages: Mapping[int, Message]
) -> None:
    """Write the changes of a commit, and notify; `messages` are those of the changes, by position."""
    for start in range(0, len(changes), _COPIED_AT_ONCE):
        some = changes[start : start + _COPIED_AT_ONCE]
        await _copy(connection, [_row(commit, change, messages[change.event.stamp.position]) for change in some])
    await notify(connection, commit)


async def write_retried(
    connection: Connection, commit: Commit, changes: Sequence[Change], messages: Mapping[int, Message]
) -> None:
    """Write the changes of a retried message: those that were applied are corrections."""
    rows = [_row(commit, change, messages[change.event.stamp.position]) for change in changes]
    applied = Verdict.APPLIED.value
    await _copy(
        connection, [(*row[:5], CORRECTED, *_NO_MESSAGE, *row[12:]) if row[5] == applied else row for row in rows]
    )
    await notify(connection, commit)


async def notify(connection: Connection, commit: Commit) -> None:
    """Notify listeners of a commit with changes; they hear of it once it is committed."""
    await connection.execute(_NOTIFY, CHANNEL, str(commit.number))


async def _copy(connection: Connection, rows: Sequence[Row]) -> None:
    await connection.copy_records_to_table("endpoint_change", records=rows, columns=COLUMNS)


def _row(commit: Commit, change: Change, message: Message) -> Row:
    """Return a row for `COLUMNS`."""
    event, endpoint_id, index, verdict, state_before, state_after, previous_seq, previous_at = change
    position, occurred_at, originator, replica = event.stamp
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    if state_after is not state_before:
        before, after = _difference(index, state_before, state_after)
        if not previous_seq:
            before = None
        elif not after:
            before = after = None
    return (
        *commit[:3],
        endpoint_id,
        _NAMES[index],
        _VERDICTS[verdict],
        position,
        occurred_at,
        message.stored_at,
        message.type,
        originator,
        replica,
        before,
        after,
        previous_seq,
        previous_at if previous_seq else None,
    )


def _difference(index: int, before: Any, after: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the visible columns of a facet that two states differ in, with the values of each."""
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    values, names, times = _VISIBLE[index]
    for name, is_time, was, now in zip(names, times, values(before), values(after), strict=True):
        if was != now:
            old[name] = time_text(was) if is_time else was
            new[name] = time_text(now) if is_time else now
    return old, new


_NAMES = tuple(facet.name for facet in FACETS)
_VERDICTS = {verdict: verdict.value for verdict in Verdict}
_VISIBLE: tuple[tuple[Callable[[Any], Row], tuple[str, ...], tuple[bool, ...]], ...] = tuple(
    (
        facet.values,
        tuple(column.name for column in facet.columns),
        tuple(column.type is TIME for column in facet.columns),
    )
    for facet in FACET_COLUMNS
)
"""By facet: what returns the values of its visible columns, the name of each, and whether it is a time."""
