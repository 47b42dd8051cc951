"""Explanations from the row of an endpoint and the log of changes, in memory."""

from typing import Any

from hypothesis import given

from projector.app.explain import Scope, explain
from projector.domain.endpoint import FACETS, Change
from projector.domain.events import (
    AppVersionUpdated,
    ConfigAvailable,
    Connected,
    Disconnected,
    Event,
    Registered,
    Unregistered,
)
from projector.domain.facets import Verdict
from projector.domain.messages import Message
from projector.stream import subjects
from projector.stream.protocol import event_names
from tests.support.explained import changes_of, reasons_of
from tests.support.memory.database import MemoryDatabase
from tests.support.memory.records import MemoryRecords
from tests.support.strategies import histories

NAMES = event_names("kaa-2020-05")


async def from_log(endpoint_id: str, *events: Event, limit: int | None = None) -> tuple[Any, list[Change]]:
    """Return the explanation of an endpoint from its row and its log, and what the fold did."""
    endpoints, changes = changes_of(*events)
    database = MemoryDatabase()
    database.live.endpoints.update(endpoints)
    for change in changes:
        event = change.event
        subject = subjects.build(event.stamp.originator, NAMES[type(event)])
        database.changes.append((change, Message(event.stamp.position, event.stamp.position, subject, b"")))
    records = MemoryRecords(database, revision="kaa-2020-05")
    found = await explain(records, endpoint_id, event_names, scope=Scope(limit=limit))
    own = [change for change in changes if change.endpoint_id == endpoint_id]
    return found, sorted(own, key=lambda change: (change.event.stamp.position, FACETS[change.facet].name))[::-1]


_SAID_BY_THE_LOG = (Connected, Disconnected, Registered, Unregistered, ConfigAvailable)


def _is_ambiguous(change: Change, events: list[Event]) -> bool:
    """Return whether the event that holds the version cannot be told from an update without one at the same time."""
    if FACETS[change.facet].name != "application" or change.before.version is None:
        return False
    held_at = change.before.version.stamp.occurred_at
    return any(
        isinstance(event, AppVersionUpdated) and not event.app_version and event.stamp.occurred_at == held_at
        for event in events
    )


@given(histories())
async def test_the_log_gives_the_same_reasons_as_the_stream(events: list[Event]) -> None:
    endpoints, _ = changes_of(*events)
    for endpoint_id in endpoints:
        found, changes = await from_log(endpoint_id, *events)
        assert len(found.events) == len(changes)
        for explained, change in zip(found.events, changes, strict=True):
            if change.verdict is Verdict.APPLIED:
                assert explained.reason is None
                continue
            ((_, exact),) = reasons_of([change])
            if type(change.event) in _SAID_BY_THE_LOG and not _is_ambiguous(change, events):
                assert explained.reason == exact
            else:  # the log does not say what the event said
                assert explained.reason.startswith(f"{change.verdict.value}: ")
                assert "had decided" not in explained.reason
