"""Explanations of endpoints, from the database and from the stream."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from projector import resources
from projector.app.explanation import ExplainedColumn, ExplainedEvent, Explanation, Replayed
from projector.dev.fleet import Fleet
from projector.domain.messages import Selection
from projector.errors import DatabaseRefusedError, MomentUnknownError, NoEndpointError
from projector.runtime import Projector
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.support.fixtures import Event, Wire
from tests.support.scene import Scene

T = 1_700_000_000_000
AT = datetime.fromtimestamp(T // 1000, UTC)


@pytest.fixture
def life(event: Event) -> list[Wire]:
    """An endpoint whose disconnect is fenced, whose connect is late, and whose configuration is pending."""
    return [
        event("lifecycle.registered", "e1", originator="epr", appVersionName="v1", originatorReplicaId="epr-1"),
        event("connectivity.connected", "e1", appVersionName="v2", originatorReplicaId="kpc-1", timestamp=T + 1000),
        event("connectivity.disconnected", endpointIds=["e1"], originatorReplicaId="kpc-2", timestamp=T + 2000),
        event("connectivity.connected", "e1", originatorReplicaId="kpc-2", timestamp=T + 500),
        event("config.new-available", "e1", configId="c1", originatorReplicaId="cfg-1", timestamp=T + 3000),
        event("metadata.updated", "e1", added=["site"], originatorReplicaId="epr-1", timestamp=T + 4000),
    ]


async def explain(scene: Scene, endpoint_id: str = "e1", **options: Any) -> Explanation:
    return await Projector(scene.settings()).explain(endpoint_id, **options)


async def now(scene: Scene) -> datetime:
    ((moment,),) = await scene.query("SELECT clock_timestamp()")
    assert isinstance(moment, datetime)
    return moment


def reasons(found: Explanation) -> list[tuple[int | None, str]]:
    return [(event.position, event.reason) for event in found.events if event.reason is not None]


async def test_each_column_has_the_event_that_set_it(scene: Scene, life: list[Wire]) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    found = await explain(scene)
    columns = found.columns
    at = AT + timedelta(seconds=1)
    status = ExplainedColumn(
        value="connected",
        event="connectivity.connected",
        position=2,
        occurred_at=at,
        originator="kpc",
        replica="kpc-1",
    )
    assert columns["connectivity_status"] == status
    assert columns["connected_at"] == replace(status, value=at)
    assert columns["connected_replica"] == replace(status, value="kpc-1")
    assert columns["app_version"] == replace(status, value="v2")
    assert columns["disconnected_at"] == ExplainedColumn(value=None)
    assert columns["registration_status"].event == "lifecycle.registered"
    assert (columns["config_pending_id"].value, columns["config_pending_id"].event) == ("c1", "config.new-available")
    assert (columns["metadata"].value, columns["metadata"].event) == ({"site": None}, "metadata.updated")
    assert (columns["last_event_seq"].value, columns["last_event_seq"].event) == (6, "metadata.updated")
    ((row,),) = await scene.query(
        "SELECT array_agg(column_name::text) FROM information_schema.columns WHERE table_name = 'endpoint_state'"
    )
    assert set(columns) == {name for name in row if not name.endswith("_registers")} - {"endpoint_id"}


async def test_each_rejection_has_a_reason_in_the_log(scene: Scene, life: list[Wire]) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    found = await explain(scene)
    held = "kpc/kpc-1 {} 2023-11-14T22:13:21+00:00 (position 2)"
    assert reasons(found) == [
        (4, f"late: a connect from {held.format('at')} is newer"),
        (3, f"fenced: the session is held by {held.format('since')}"),
    ]
    assert [(event.position, event.facet) for event in found.events] == [
        (6, "metadata"),
        (5, "configuration"),
        (4, "connectivity"),
        (3, "connectivity"),
        (2, "connectivity"),
        (2, "application"),
        (1, "registration"),
        (1, "application"),
    ]
    commits: dict[int, int] = dict(await scene.query("SELECT position, commit_no FROM endpoint_change"))
    assert {event.position: event.commit_no for event in found.events} == commits
    assert found.events[0].after == {"metadata": {"site": None}, "metadata_changed_at": "2023-11-14T22:13:24+00:00"}
    assert not found.older


async def test_only_some_events_are_shown_and_the_reasons_stay(scene: Scene, life: list[Wire]) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    every, some = await explain(scene), await explain(scene, events=3)
    assert (some.events, some.older) == (every.events[:3], True)
    none = await explain(scene, events=0)
    assert (none.events, none.older, none.columns) == ([], True, every.columns)


async def test_without_a_log_the_registers_answer_and_the_stream_tells_the_type(scene: Scene, life: list[Wire]) -> None:
    await scene.publish(*life[:2], life[3])
    await scene.fold()
    found = await explain(scene)
    assert (found.events, found.known_since, found.unknown) == ([], None, None)
    # The register alone does not tell whether a late connect or another event was the last.
    last = found.columns["last_event_seq"]
    assert (last.value, last.event, last.originator, last.replica) == (3, "connectivity.connected", "kpc", "kpc-2")


async def test_without_the_message_or_nats_the_type_is_unknown_and_it_says_so(scene: Scene, life: list[Wire]) -> None:
    await scene.publish(*life[:2], life[3])
    await scene.fold()
    elsewhere = Projector(scene.settings(nats_url="nats://127.0.0.1:1"))
    found = await elsewhere.explain("e1")
    assert found.columns["connectivity_status"].event == "connectivity.connected"
    assert found.columns["last_event_seq"].event is None
    assert "not reachable" in (found.unknown or "")


async def test_a_role_that_may_not_read_the_log_gets_the_columns(scene: Scene, life: list[Wire]) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    await scene.query("CREATE ROLE half LOGIN")
    try:
        await scene.query("GRANT SELECT ON endpoint_state, projector_checkpoint, projector_migration TO half")
        as_half = scene.database_url.replace("//postgres@", "//half@")
        found = await Projector(scene.settings(as_half)).explain("e1")
        assert (found.events, found.known_since, found.is_permitted) == ([], None, False)
        assert found.columns["app_version"].event == "connectivity.connected"
        with pytest.raises(DatabaseRefusedError, match="permission denied"):
            await Projector(scene.settings(as_half)).explain("e1", at=await now(scene))
    finally:
        await scene.query("DROP OWNED BY half")
        await scene.query("DROP ROLE half")


async def test_the_columns_at_a_moment_are_explained_as_they_were(scene: Scene, life: list[Wire], event: Event) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    before, moment = await explain(scene), await now(scene)
    await scene.publish(
        event("connectivity.disconnected", endpointIds=["e1"], originatorReplicaId="kpc-1", timestamp=T + 9000),
        event("connectivity.connected", "e1", appVersionName="v3", originatorReplicaId="x", timestamp=T + 9500),
        event("config.updated", "e1", configId="c1", originatorReplicaId="cfg-1", timestamp=T + 9500),
        event("metadata.updated", "e1", removed=["site"], originatorReplicaId="epr-1", timestamp=T + 9500),
    )
    await scene.fold(changes="7d")
    then = await explain(scene, at=moment)
    assert then.columns == before.columns
    assert then.events == before.events
    assert (await explain(scene)).columns != before.columns


async def test_a_moment_that_the_log_does_not_reach_is_an_error(scene: Scene, life: list[Wire]) -> None:
    await scene.publish(*life)
    await scene.fold()
    moment = await now(scene)
    with pytest.raises(MomentUnknownError, match="changes are not recorded"):
        await explain(scene, at=moment)
    await scene.fold(changes="7d")
    with pytest.raises(MomentUnknownError, match="the log of changes begins at"):
        await explain(scene, at=moment)


@pytest.mark.parametrize("endpoint_id", ["e2", "", "a\0b", "\udcff", "x" * 5000])
async def test_an_unknown_endpoint_is_an_error(scene: Scene, life: list[Wire], endpoint_id: str) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    with pytest.raises(NoEndpointError, match="there is no endpoint"):
        await explain(scene, endpoint_id)


async def test_an_endpoint_that_came_later_is_unknown_at_a_moment(scene: Scene, life: list[Wire], event: Event) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    moment = await now(scene)
    await scene.publish(event("connectivity.connected", "e2"))
    await scene.fold(changes="7d")
    with pytest.raises(NoEndpointError, match="at that moment"):
        await explain(scene, "e2", at=moment)


async def test_what_a_rebuild_changed_is_a_correction(scene: Scene, life: list[Wire]) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    await scene.query("UPDATE endpoint_state SET app_version = 'wrong', metadata = '{}'")
    damaged = await explain(scene)
    assert damaged.columns["app_version"] == ExplainedColumn(value="wrong")
    assert damaged.columns["metadata"] == ExplainedColumn(value={})
    assert damaged.unfounded == ["app_version", "metadata"]
    await Projector(scene.settings()).rebuild()
    found = await explain(scene)
    assert (found.columns["app_version"].value, found.unfounded) == ("v2", [])
    assert [event.reason for event in found.events[:2]] == [
        f"corrected: a rebuild or a retry at {(found.events[0].reason or '').split()[7]} changed {column}"
        for column in ("metadata", "app_version")
    ]
    assert (found.events[1].before, found.events[1].after) == ({"app_version": "wrong"}, {"app_version": "v2"})
    assert reasons(found)[2:] == reasons(damaged)


async def test_a_row_that_a_rebuild_removed_still_has_its_events(scene: Scene, life: list[Wire]) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    await scene.query("UPDATE endpoint_state SET endpoint_id = 'e9'")
    await Projector(scene.settings()).rebuild()
    found = await explain(scene, "e9")
    assert {column.value for column in found.columns.values()} == {None}
    assert {event.reason.rsplit(" ", 3)[1:] == ["removed", "the", "row"] for event in found.events if event.reason} == {
        True
    }


async def test_both_meanings_of_config_updated_are_told_apart(scene: Scene) -> None:
    codec_2020 = Codec("kaa-2020-05", resources.folder("schemas"))
    header = {"correlationId": "", "timestamp": T, "timeout": 0, "originatorReplicaId": "cfg-1", "endpointId": "e1"}
    record = header | {"appVersionName": "v1", "configId": "c1"}
    failed = record | {"statusCode": 500, "reasonPhrase": "no", "timestamp": T + 2000, "originatorReplicaId": "x"}
    late = failed | {"timestamp": T + 1000, "originatorReplicaId": "y"}
    await scene.publish(
        *(
            (f"kaa.v1.events.cfg.endpoint.{name}", codec_2020.encode(name, fields))
            for name, fields in (
                ("config.updated", record | {"content": b"secret"}),
                ("config.applied", failed),
                ("config.applied", late),
            )
        )
    )
    await scene.fold(changes="7d", revision="kaa-2020-05")
    found = await explain(scene)  # the revision is that of the checkpoint
    assert found.columns["config_available_id"].event == "config.updated"
    assert (found.columns["config_status"].value, found.columns["config_status"].event) == ("failed", "config.applied")
    assert reasons(found) == [(3, "late: a failure from cfg/x at 2023-11-14T22:13:22+00:00 (position 2) is newer")]
    assert "secret" not in str(found)


@pytest.mark.parametrize("revision", ["kaa-2017-04", "kaa-2020-05"])
async def test_the_stream_says_of_a_fleet_what_rows_and_log_say(scene: Scene, revision: str) -> None:
    codec = Codec(revision, resources.folder("schemas"))
    fleet = Fleet(endpoints=12, seed=7, start_at=T, interval_ms=100, revision=revision)
    sent = [
        (subjects.build(one.originator, one.event_type), codec.encode(one.event_type, one.record))
        for one in islice(fleet.events(), 600)
    ]
    await scene.publish(*sent[:200])
    await scene.fold(changes="7d", revision=revision)
    moment = await now(scene)
    await scene.publish(*sent[200:])
    await scene.fold(changes="7d", revision=revision)
    projector = Projector(scene.settings(revision=revision))
    for (endpoint_id,) in await scene.query("SELECT endpoint_id FROM endpoint_state ORDER BY 1 LIMIT 6"):
        known = await projector.explain(endpoint_id, events=None)
        told = await projector.explain(endpoint_id, events=None, replay=True)
        assert told.columns == known.columns
        assert told.keys == known.keys
        assert [as_told(event) for event in told.events] == [as_told(event) for event in known.events]
        assert all(event.reason for event in told.events if event.verdict != "applied")
        assert (known.unfounded, known.unknown, told.replayed) == ([], None, Replayed(position=600, first=1, gone=0))
        then = await projector.explain(endpoint_id, at=moment, events=None)
        assert then.events == known.events[len(known.events) - len(then.events) :]
        assert max(event.position or 0 for event in then.events) <= 200 < (known.events[0].position or 0)


def as_told(event: ExplainedEvent) -> ExplainedEvent:
    """Return an event as a replay knows it: without its commit, and without its reason, which is more exact there."""
    return replace(event, reason=None, commit_no=None, committed_at=None)


async def test_a_message_that_was_retried_is_a_correction_and_its_late_part_has_a_reason(
    scene: Scene, event: Event
) -> None:
    await scene.query("ALTER TABLE endpoint_state ADD CONSTRAINT wrong CHECK (app_version <> 'bad')")
    await scene.publish(
        event("connectivity.connected", "e1", appVersionName="bad", originatorReplicaId="kpc-1", timestamp=T + 1000),
        event("connectivity.connected", "e1", originatorReplicaId="kpc-2", timestamp=T + 2000),
    )
    await scene.fold(changes="7d")
    await scene.query("ALTER TABLE endpoint_state DROP CONSTRAINT wrong")
    async for retried in Projector(scene.settings()).retry_dead_letters(Selection()):
        assert retried.parked_again is None
    found = await explain(scene)
    assert [(event.position, event.facet, event.verdict) for event in found.events[:2]] == [
        (1, "connectivity", "late"),
        (None, "application", "corrected"),
    ]
    assert found.events[0].reason == "late: a connect from kpc/kpc-2 at 2023-11-14T22:13:22+00:00 (position 2) is newer"
    # The log has no message for a correction, but the stream has it.
    assert (found.columns["app_version"].value, found.columns["app_version"].event) == ("bad", "connectivity.connected")
