"""Explanations from the stream, in memory."""

from dataclasses import replace
from random import Random

import pytest

from projector.app.explain import Scope, explain
from projector.app.explanation import ExplainedEvent, Explanation, Replayed
from projector.app.retrace import Retrace
from projector.domain.events import Event as DomainEvent
from projector.domain.messages import Skipped
from projector.errors import NoEndpointError, PoisonError
from projector.stream.codec import Codec
from projector.stream.protocol import event_names
from tests.support.explained import changes_of
from tests.support.fixtures import Event
from tests.support.memory.database import MemoryDatabase
from tests.support.memory.life import MALFORMED, UNKNOWN, life
from tests.support.memory.records import MemoryRecords
from tests.support.memory.stream import MemoryStream, T

REVISION = "kaa-2017-04"
EVERYTHING = Scope(limit=None)


async def retraced(stream: MemoryStream, codec: Codec, endpoint_id: str, scope: Scope = EVERYTHING) -> Explanation:
    async with stream.open(batch_size=7) as source:
        return await Retrace(source, codec, endpoint_id, scope, lambda *_: None).run(event_names(REVISION))


async def from_database(stream: MemoryStream, codec: Codec, endpoint_id: str, scope: Scope) -> Explanation:
    """Return what the row and the log say once a daemon has folded the stream."""
    messages = {message.position: message for message in stream.after(0)}
    events: list[DomainEvent] = []
    for message in messages.values():
        try:
            decoded = codec.decode(message)
        except PoisonError:
            continue
        events += [] if isinstance(decoded, Skipped) else decoded
    endpoints, changes = changes_of(*events)
    database = MemoryDatabase()
    database.live.endpoints.update(endpoints)
    database.changes += [(change, messages[change.event.stamp.position]) for change in changes]
    return await explain(MemoryRecords(database, revision=REVISION), endpoint_id, event_names, scope)


def without_reasons(found: Explanation) -> list[ExplainedEvent]:
    """The stream tells them better than the log, and knows of no commits."""
    return [replace(one, reason=None, commit_no=None, committed_at=None) for one in found.events]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("at", [None, T + 25])
async def test_the_stream_says_what_row_and_log_say(codec: Codec, event: Event, seed: int, at: int | None) -> None:
    stream, scope = MemoryStream(), Scope(at, limit=None)
    random = Random(seed)  # noqa: S311 - it makes messages, the same ones each time
    await stream.publish(*life(event, random, 60, endpoints=3))
    for number in range(3):
        ours = await retraced(stream, codec, f"e{number}", scope)
        theirs = await from_database(stream, codec, f"e{number}", scope)
        assert ours.columns == theirs.columns
        assert without_reasons(ours) == without_reasons(theirs)
        if at is None:
            assert ours.keys == theirs.keys
        assert {one.reason is None for one in ours.events if one.verdict != "applied"} <= {False}


async def test_only_the_latest_events_are_kept(codec: Codec, event: Event) -> None:
    stream = MemoryStream()
    random = Random(1)  # noqa: S311 - as above
    await stream.publish(*life(event, random, 60, endpoints=1))
    every, some = await retraced(stream, codec, "e0"), await retraced(stream, codec, "e0", Scope(limit=5))
    assert (some.events, some.older, every.older) == (every.events[:5], True, False)
    assert some.columns == every.columns


async def test_a_stream_whose_beginning_is_gone_is_named(codec: Codec, event: Event) -> None:
    stream = MemoryStream()
    await stream.publish(*(event("connectivity.connected", "e1", originatorReplicaId="x") for _ in range(5)))
    await stream.trim(3)
    await stream.delete(4)
    found = await retraced(stream, codec, "e1")
    assert found.replayed == Replayed(position=5, first=3, gone=3)
    assert [one.position for one in found.events if one.facet == "connectivity"] == [5, 3]


@pytest.mark.parametrize("endpoint_id", ["e2", "", "\udcff", "e\0"])
async def test_an_endpoint_that_no_message_names_is_an_error(codec: Codec, event: Event, endpoint_id: str) -> None:
    stream = MemoryStream()
    await stream.publish(event("connectivity.connected", "e1"), MALFORMED, UNKNOWN)
    with pytest.raises(NoEndpointError, match="in the stream; check its id"):
        await retraced(stream, codec, endpoint_id)
    with pytest.raises(NoEndpointError, match="up to that moment"):
        await retraced(stream, codec, "e1", Scope(at=T))


async def test_the_progress_reaches_the_end_of_the_stream(codec: Codec, event: Event) -> None:
    stream, seen = MemoryStream(), list[tuple[int, int]]()
    await stream.publish(*(event("connectivity.connected", "e1") for _ in range(20)))
    async with stream.open(batch_size=7) as source:
        await Retrace(source, codec, "e1", Scope(), lambda *reached: seen.append(reached)).run(event_names(REVISION))
    assert seen == [(7, 20), (14, 20), (20, 20)]
