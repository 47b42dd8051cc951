import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from projector.dev.fleet import DEFAULT_REVISION, Fleet, SimulatedEvent
from projector.dev.records import RECORDS
from projector.domain.endpoint import FACETS, Endpoint, fold
from projector.domain.events import ConfigApplied, ConfigFailed, Disconnected, Event
from projector.domain.facets import Verdict
from projector.domain.messages import Message, Skipped
from projector.stream import subjects
from projector.stream.codec import Codec

START_AT = 1_700_000_000_000
INTERVAL_MS = 12.5
STEADY_FROM = 20  # events per endpoint, after which every endpoint has started and has a history
SLOW_BY_AT_MOST_MS = 1_000

STEADY_SHARES = {
    "connectivity.connected": 0.30,
    "connectivity.disconnected": 0.25,
    "metadata.updated": 0.15,
    "config.new-available": 0.12,
    "config.updated": 0.10,
    "lifecycle.appversion-updated": 0.04,
}

FACET_INDEX = {facet.name: index for index, facet in enumerate(FACETS)}


TODAY = "kaa-2020-05"

each_revision = pytest.mark.parametrize("revision", RECORDS)


def fleet(endpoints: int, seed: int = 7, revision: str = DEFAULT_REVISION) -> Fleet:
    return Fleet(endpoints=endpoints, seed=seed, start_at=START_AT, interval_ms=INTERVAL_MS, revision=revision)


def life(endpoints: int, length: int, *, skip: int = 0, revision: str = DEFAULT_REVISION) -> list[SimulatedEvent]:
    return list(islice(fleet(endpoints, revision=revision).events(skip=skip), length))


def endpoint_ids(event: SimulatedEvent) -> list[str]:
    several = event.record.get("endpointIds") or event.record.get("endpoints")
    return [event.record["endpointId"]] if several is None else list(several)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec("kaa-2017-04", Path(__file__).parents[2] / "schemas")


@pytest.fixture(scope="module")
def todays_codec() -> Codec:
    return Codec(TODAY, Path(__file__).parents[2] / "schemas")


def decoded(codec: Codec, events: list[SimulatedEvent]) -> Iterator[Event]:
    for number, event in enumerate(events):
        payload = codec.encode(event.event_type, event.record)
        subject = subjects.build(event.originator, event.event_type)
        stored_at = START_AT + int(number * INTERVAL_MS)
        facts = codec.decode(Message(number + 1, stored_at, subject, payload))
        assert not isinstance(facts, Skipped)
        assert sorted(name for fact in facts for name in fact.endpoint_ids) == sorted(endpoint_ids(event))
        yield from facts


@each_revision
@pytest.mark.parametrize("endpoints", [1, 2, 5, 300])
def test_same_arguments_give_the_same_events(endpoints: int, revision: str) -> None:
    assert life(endpoints, 3_000, revision=revision) == life(endpoints, 3_000, revision=revision)


def test_runs_of_one_fleet_are_independent() -> None:
    one = fleet(50)
    events = one.events()
    first = list(islice(events, 500))
    assert list(islice(one.events(), 1_000)) == first + list(islice(events, 500))


def test_another_seed_gives_another_fleet() -> None:
    one, other = (set(map(str, islice(fleet(50, seed).events(), 1_000))) for seed in (1, 2))
    assert not one & other


@each_revision
@pytest.mark.parametrize("skip", [1, 90, 1_234])
def test_skipping_resumes_where_a_run_stopped(skip: int, revision: str) -> None:
    assert life(100, 500, skip=skip, revision=revision) == life(100, skip + 500, revision=revision)[skip:]


@pytest.mark.parametrize("endpoints", [1, 3, 400])
def test_every_event_survives_the_codec(codec: Codec, endpoints: int) -> None:
    events = life(endpoints, 4_000)
    assert sum(1 for _ in decoded(codec, events)) == len(events)


@pytest.mark.parametrize("endpoints", [1, 3, 400])
def test_every_event_of_2020_05_survives_the_codec(todays_codec: Codec, endpoints: int) -> None:
    events = life(endpoints, 4_000, revision=TODAY)
    assert sum(1 for _ in decoded(todays_codec, events)) >= len(events)


def test_all_seven_types_come_from_their_originators() -> None:
    assert {(event.originator, event.event_type) for event in life(200, 4_000)} == {
        ("epr", "lifecycle.registered"),
        ("epr", "lifecycle.appversion-updated"),
        ("epr", "metadata.updated"),
        ("kpc", "connectivity.connected"),
        ("kpc", "connectivity.disconnected"),
        ("ecr", "config.new-available"),
        ("cmx", "config.updated"),
    }


def test_long_run_reaches_every_status_and_every_kind_of_change(codec: Codec) -> None:
    endpoints: defaultdict[str, Endpoint] = defaultdict(Endpoint.unseen)
    verdicts = fold(decoded(codec, life(600, 6_000)), endpoints)

    def states(facet: str) -> list[Any]:
        return [endpoint.states[FACET_INDEX[facet]] for endpoint in endpoints.values()]

    assert len(endpoints) == 600
    assert {state.rests_on[0] for state in states("connectivity")} >= {"connected", "disconnected"}
    assert {state.status for state in states("configuration")} == {"none", "pending", "applied"}
    assert any(state.previous for state in states("application"))
    assert any(len(state.values) < len(state.keys) for state in states("metadata"))
    assert verdicts[Disconnected, Verdict.FENCED] > 0


def test_single_endpoint_is_fenced_too(codec: Codec) -> None:
    verdicts = fold(decoded(codec, life(1, 1_000)), defaultdict(Endpoint.unseen))
    assert verdicts[Disconnected, Verdict.FENCED] > 0


def test_every_endpoint_is_registered_once_and_before_anything_else() -> None:
    seen: set[str] = set()
    registered = 0
    for event in life(500, 20_000):
        if event.event_type == "lifecycle.registered":
            registered += 1
            assert event.record["endpointId"] not in seen
            seen.add(event.record["endpointId"])
        assert seen.issuperset(endpoint_ids(event))
    assert registered == 500


def test_most_of_the_fleet_starts_at_once() -> None:
    types = Counter(event.event_type for event in life(1_000, 2_000))
    assert types["lifecycle.registered"] > 850
    assert types["connectivity.connected"] > 750


def test_an_upgraded_endpoint_reconnects_naming_its_new_version() -> None:
    upgraded: dict[str, str] = {}
    reconnected = 0
    for event in life(200, 10_000):
        version = event.record.get("appVersionName", "")
        if event.event_type == "lifecycle.appversion-updated":
            assert event.record["previousAppVersionName"] != version
            upgraded[event.record["endpointId"]] = version
        elif event.event_type == "connectivity.connected" and event.record["endpointId"] in upgraded:
            assert upgraded.pop(event.record["endpointId"]) == version
            reconnected += 1
    assert reconnected > 100


def test_some_disconnects_name_several_endpoints_each_once() -> None:
    disconnects = [event for event in life(200, 5_000) if event.event_type == "connectivity.disconnected"]
    sizes = Counter(len(endpoint_ids(event)) for event in disconnects)
    assert sizes[1] > sum(sizes.values()) / 2
    assert max(sizes) > 1
    assert all(len(set(endpoint_ids(event))) == len(endpoint_ids(event)) for event in disconnects)


def test_the_steady_mix_is_that_of_a_fleet() -> None:
    length = 20_000
    types = Counter(event.event_type for event in life(500, length, skip=500 * STEADY_FROM))
    for event_type, share in STEADY_SHARES.items():
        assert types[event_type] / length == pytest.approx(share, abs=0.03), event_type


@pytest.mark.parametrize("skip", [0, 100_000, 300_000])
def test_a_backlog_names_mostly_distinct_endpoints(skip: int) -> None:
    named = Counter(name for event in life(100_000, 8_000, skip=skip) for name in endpoint_ids(event))
    assert len(named) > 0.9 * named.total()


def test_identifiers_have_their_formats() -> None:
    events = life(300, 6_000)
    for event in events:
        for text in (event.record["correlationId"], *endpoint_ids(event)):
            assert str(UUID(text)) == text
        if "configId" in event.record:
            assert len(bytes.fromhex(event.record["configId"])) == 16
    assert len({event.record["correlationId"] for event in events}) == len(events)


def test_most_replicas_are_known() -> None:
    replicas = Counter((event.originator, event.record["originatorReplicaId"]) for event in life(300, 20_000))
    assert {replica for originator, replica in replicas if originator == "kpc"} == {
        "", "kpc-0", "kpc-1", "kpc-2", "kpc-3",
    }  # fmt: skip
    unknown = sum(count for (_, replica), count in replicas.items() if not replica)
    assert replicas["epr", None] > 0
    assert unknown < 0.02 * replicas.total()


def test_timestamps_are_never_ahead_and_rarely_late() -> None:
    behind = [
        START_AT + int(number * INTERVAL_MS) - event.record["timestamp"]
        for number, event in enumerate(life(300, 20_000))
    ]
    assert min(behind) == 0
    assert max(behind) <= SLOW_BY_AT_MOST_MS
    assert 0 < sum(map(bool, behind)) < 0.05 * len(behind)


# Revision kaa-2020-05.


def test_all_types_of_2020_05_come_from_their_originators() -> None:
    assert {(event.originator, event.event_type) for event in life(200, 4_000, revision=TODAY)} == {
        ("epr", "lifecycle.registered"),
        ("epr", "lifecycle.unregistered"),
        ("epr", "lifecycle.appversion-updated"),
        ("epr", "metadata.updated"),
        ("kpc", "connectivity.connected"),
        ("kpc", "connectivity.disconnected"),
        ("ecr", "config.updated"),
        ("cmx", "config.applied"),
    }


def test_long_run_of_2020_05_reaches_every_status_and_late_events_of_ended_lives(todays_codec: Codec) -> None:
    endpoints: defaultdict[str, Endpoint] = defaultdict(Endpoint.unseen)
    verdicts = fold(decoded(todays_codec, life(600, 40_000, revision=TODAY)), endpoints)

    def states(facet: str) -> list[Any]:
        return [endpoint.states[FACET_INDEX[facet]] for endpoint in endpoints.values()]

    assert {state.rests_on[0] for state in states("connectivity")} >= {"connected", "disconnected"}
    assert {state.status for state in states("configuration")} == {"none", "pending", "applied", "failed"}
    assert {state.status for state in states("registration")} == {"registered", "unregistered"}
    assert any(state.registered and state.unregistered for state in states("registration"))
    assert any(state.available and not state.available.value for state in states("configuration"))
    assert verdicts[Disconnected, Verdict.FENCED] > 0


def test_failed_configuration_is_retried_until_it_is_applied(todays_codec: Codec) -> None:
    reports: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for event in decoded(todays_codec, life(50, 20_000, revision=TODAY)):
        if isinstance(event, ConfigFailed | ConfigApplied):
            reports[event.endpoint_ids[0], event.config_id].append(isinstance(event, ConfigApplied))
    assert any(came == [False, True] for came in reports.values())


def test_a_gateway_connects_and_drops_many_endpoints_at_once() -> None:
    sizes = {
        kind: max(len(endpoint_ids(event)) for event in life(1_000, 20_000, revision=TODAY) if event.event_type == kind)
        for kind in ("connectivity.connected", "connectivity.disconnected")
    }
    assert min(sizes.values()) == 20


def test_metadata_of_2020_05_has_every_json_type_and_texts_that_are_not_json() -> None:
    values = [
        value
        for event in life(300, 10_000, revision=TODAY)
        if event.event_type == "metadata.updated"
        for value in (*event.record["added"].values(), *(new["newValue"] for new in event.record["updated"].values()))
    ]
    found = set()
    for value in values:
        try:
            found.add(type(json.loads(value)) if value is not None else None)
        except ValueError:
            found.add(ValueError)
    assert found == {None, bool, int, float, str, list, dict, ValueError}
