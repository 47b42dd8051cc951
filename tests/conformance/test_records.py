"""The port Records."""

import pytest

from projector.app.projection import Batch, Projection
from projector.domain.endpoint import Endpoint, fold
from projector.domain.events import Disconnected, Event
from projector.domain.explanation import Known, shown_by
from projector.domain.messages import Message
from projector.errors import PoisonError
from projector.stream.codec import Codec
from tests.conformance.databases import DatabaseUnderTest
from tests.conformance.states import START, T, announced, connected, facts, stamp

OTHER = stamp(3)._replace(replica="kpc-1")
EVENTS = [connected(1), announced(2), Disconnected(OTHER, ("e",)), connected(4, version="v2")]
NAMES = ["connectivity.connected", "config.new-available", "connectivity.disconnected", "connectivity.connected"]


@pytest.fixture
async def folded(database: DatabaseUnderTest, codec: Codec) -> DatabaseUnderTest:
    """Each event is folded in a commit of its own, and was stored a millisecond after the one before."""
    store = await database.open_store()
    await store.begin(START)
    projection = Projection(codec, store, START, logs_changes=True)
    for event, name in zip(EVENTS, NAMES, strict=True):
        position = event.stamp.position
        message = Message(position, T + position, f"kaa.v1.events.kpc.endpoint.{name}", b"")
        await projection.process(Batch(position=position, messages=[message], events=[event]))
    return database


async def known(database: DatabaseUnderTest, *, at: int | None = None, limit: int | None = None) -> Known:
    return await (await database.open_records()).load("e", at=at, limit=limit)


def after(events: list[Event]) -> Endpoint:
    endpoint = Endpoint.unseen()
    fold(events, {"e": endpoint})
    return endpoint


async def test_the_row_and_its_registers_are_known(folded: DatabaseUnderTest) -> None:
    found = await known(folded)
    assert found.endpoint is not None
    assert facts(found.endpoint) == facts(after(EVENTS))
    assert found.shown == shown_by(after(EVENTS))
    assert (found.revision, found.is_permitted, found.since is None) == ("kaa-2017-04", True, False)


async def test_the_changes_are_known_newest_first(folded: DatabaseUnderTest) -> None:
    found = (await known(folded)).changes
    assert [(one.position, one.facet, one.verdict, one.event, one.previous_event_seq) for one in found] == [
        (4, "connectivity", "applied", NAMES[3], 3),
        (4, "application", "applied", NAMES[3], 3),
        (3, "connectivity", "fenced", NAMES[2], 2),
        (2, "configuration", "applied", NAMES[1], 1),
        (1, "connectivity", "applied", NAMES[0], 0),
        (1, "application", "applied", NAMES[0], 0),
    ]
    assert [one.stamp for one in found] == [
        event.stamp for event in (*EVENTS[3:] * 2, *EVENTS[2:0:-1], *EVENTS[:1] * 2)
    ]
    assert (found[1].before, found[1].after) == (
        {"app_version": "v1", "app_version_changed_at": "2023-11-14T22:13:20.001+00:00"},
        {"app_version": "v2", "app_version_changed_at": "2023-11-14T22:13:20.004+00:00"},
    )
    assert (found[2].before, found[2].after) == (None, None)
    assert found[5].before is None
    assert (await known(folded, limit=2)).changes == found[:2]


async def test_the_past_is_known_at_the_time_of_each_commit(folded: DatabaseUnderTest) -> None:
    times = sorted({change.committed_at for change in (await known(folded)).changes})
    for at in times:
        found = await known(folded, at=at)
        folded_then = max(change.position or 0 for change in found.changes)
        assert found.shown == shown_by(after(EVENTS[:folded_then]))
        assert {change.committed_at <= at for change in found.changes} == {True}


async def test_changes_are_found_by_position_and_by_time(folded: DatabaseUnderTest) -> None:
    records = await folded.open_records()
    await records.load("e", at=None, limit=1)
    assert {one.position for one in await records.find("e", [2], [])} == {2}
    assert {one.position for one in await records.find("e", [], [T + 1, T + 3])} == {1, 3}
    assert await records.find("other", [2], [T + 1]) == []


async def test_an_endpoint_without_a_row_has_no_columns(folded: DatabaseUnderTest) -> None:
    found = await (await folded.open_records()).load("other", at=None, limit=None)
    assert (found.endpoint, found.shown, list(found.changes)) == (None, None, [])


async def test_an_id_that_no_database_holds_is_poison(folded: DatabaseUnderTest) -> None:
    with pytest.raises(PoisonError):
        await (await folded.open_records()).load("\0", at=None, limit=None)
