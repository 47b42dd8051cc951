"""Why the answers about an endpoint are what they are: the event behind each column, and the reasons of rejections."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from projector.app.explain import Scope, explain
from projector.app.explanation import ExplainedColumn, Names
from projector.domain.facets import Verdict
from projector.domain.lookup import ChangeCursor, Json
from projector.errors import FatalError
from projector.monitoring.ports import Endpoints

_MOST_EXPLAINED = 1_000
_NEW_MEANWHILE = 20


class _Key(msgspec.Struct):
    """What tells one change of an endpoint from another, and its verdict."""

    commit_no: int
    position: int | None
    facet: str
    verdict: str


class Reasons:
    """Explains from the registers and the log of changes, and does not read the stream."""

    def __init__(self, endpoints: Endpoints, names_in: Callable[[str], Names]) -> None:
        """Take what to read, and what returns the names of the events of a revision."""
        self._endpoints = endpoints
        self._names_in = names_in

    async def of_columns(self, endpoint_id: str) -> dict[str, Any]:
        """Return the event behind each column and each metadata key; null if it is not known."""
        try:
            async with self._endpoints.records() as records:
                found = await explain(records, endpoint_id, self._names_in, Scope(limit=0))
        except FatalError:  # the row is damaged, or was deleted meanwhile
            return {"set_by": None, "metadata_set_by": None}
        return {
            "set_by": {name: _behind(column) for name, column in found.columns.items()},
            "metadata_set_by": {name: _behind(key) for name, key in found.keys.items() if key.present},
        }

    async def of_changes(
        self, endpoint_id: str, before: ChangeCursor | None, rows: Sequence[Json]
    ) -> Sequence[str | None]:
        """Return a sentence for each rejection and correction on a page of changes."""
        changes = [msgspec.json.decode(row, type=_Key) for row in rows]
        if all(change.verdict == Verdict.APPLIED.value for change in changes):
            return [None] * len(changes)
        shown = _NEW_MEANWHILE if before is None else await self._endpoints.count_shown(endpoint_id, before)
        limit = min(shown, _MOST_EXPLAINED) + len(changes)
        at = None if before is None else before.committed_at
        try:
            async with self._endpoints.records() as records:
                found = await explain(records, endpoint_id, self._names_in, Scope(at=at, limit=limit))
        except FatalError:  # the row is damaged, or a day of the log was dropped meanwhile
            return [None] * len(changes)
        reasons = {(event.commit_no, event.position, event.facet): event.reason for event in found.events}
        return [reasons.get((change.commit_no, change.position, change.facet)) for change in changes]


def _behind(explained: ExplainedColumn) -> dict[str, Any] | None:
    if explained.position is None:
        return None
    occurred_at = explained.occurred_at  # a damaged row can hold something other than a time
    return {
        "event": explained.event,
        "position": explained.position,
        "occurred_at": occurred_at.isoformat(timespec="milliseconds") if isinstance(occurred_at, datetime) else None,
        "originator": explained.originator,
        "replica": explained.replica,
    }
