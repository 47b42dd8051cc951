"""What a database in memory knows of an endpoint: the port `Records`."""

from collections.abc import Collection

from projector.domain.endpoint import FACETS, Change, Endpoint, fold
from projector.domain.explanation import Known, Logged, difference, shown_by
from projector.domain.facets import Verdict
from projector.domain.messages import Message
from projector.errors import MomentUnknownError, PoisonError
from tests.support.memory.database import MemoryDatabase


class MemoryRecords:
    """The port `Records`; every change is committed when the broker stores its message."""

    def __init__(self, database: MemoryDatabase, *, revision: str, since: int | None = 0) -> None:
        self._database = database
        self._revision = revision
        self._since = since

    async def load(self, endpoint_id: str, *, at: int | None, limit: int | None) -> Known:
        if "\0" in endpoint_id:
            raise PoisonError("database-rejected", "a NUL character")
        if at is not None and (self._since is None or at < self._since):
            raise MomentUnknownError(at=str(at), since=None)
        endpoint = self._database.live.endpoints.get(endpoint_id)
        at_the_moment = endpoint if at is None else self._at(endpoint_id, at)
        changes = [change for change in self._changes(endpoint_id) if at is None or change.committed_at <= at]
        return Known(
            revision=self._revision,
            since=self._since,
            is_permitted=True,
            endpoint=endpoint,
            shown=None if at_the_moment is None else shown_by(at_the_moment),
            changes=changes[::-1][:limit],
        )

    async def find(self, endpoint_id: str, positions: Collection[int], times: Collection[int]) -> list[Logged]:
        return [
            change
            for change in self._changes(endpoint_id)
            if change.position in positions or change.occurred_at in times
        ]

    def _changes(self, endpoint_id: str) -> list[Logged]:
        since = self._since
        if since is None:
            return []
        found = [
            logged(change, message)
            for change, message in self._database.changes
            if change.endpoint_id == endpoint_id and message.stored_at >= since
        ]
        return sorted(found, key=lambda change: (change.commit_no, change.facet))

    def _at(self, endpoint_id: str, at: int) -> Endpoint | None:
        # A message has at most one event for an endpoint, and that has a change for each facet.
        events = {
            message.position: change.event
            for change, message in self._database.changes
            if change.endpoint_id == endpoint_id and message.stored_at <= at
        }
        endpoints = {name: Endpoint.unseen() for event in events.values() for name in event.endpoint_ids}
        fold(events.values(), endpoints)
        return endpoints.get(endpoint_id)


def logged(change: Change, message: Message) -> Logged:
    """Return a change as the log has it."""
    before, after = difference(FACETS[change.facet], change.before, change.after)
    stamp = change.event.stamp
    applied = change.verdict is Verdict.APPLIED
    return Logged(
        commit_no=stamp.position,
        committed_at=message.stored_at,
        facet=FACETS[change.facet].name,
        verdict=change.verdict.value,
        position=stamp.position,
        occurred_at=stamp.occurred_at,
        event=message.type,
        originator=stamp.originator,
        replica=stamp.replica,
        before=before if after and change.previous_seq else None,
        after=after if applied and (after or not change.previous_seq) else None,
        previous_event_seq=change.previous_seq,
        previous_event_at=change.previous_at if change.previous_seq else None,
    )
