from collections import Counter
from copy import deepcopy
from importlib import import_module
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.domain.endpoint import EVENT_TYPES, FACETS, TOUCHED_FACETS, Change, Endpoint, completed, fold, missing
from projector.domain.events import (
    AppVersionUpdated,
    ConfigApplied,
    ConfigAvailable,
    ConfigFailed,
    Connected,
    Disconnected,
    Event,
    MetadataUpdated,
    Registered,
    Unregistered,
)
from projector.domain.facets import Verdict
from projector.domain.stamps import Stamp, from_other_replica, supersedes
from projector.domain.trimmed import Trimmed
from tests.support.strategies import ENDPOINTS, folded, histories, snapshot, stamp

E = ("e",)
FIRST = stamp(1, at=100)
ONE_OF_EACH: list[Event] = [
    Connected(FIRST, E, "v1"),
    Disconnected(FIRST, E),
    Registered(FIRST, E, "v1"),
    Unregistered(FIRST, E),
    AppVersionUpdated(FIRST, E, "v1", "v0"),
    MetadataUpdated(FIRST, E, {"site": None}, ()),
    ConfigAvailable(FIRST, E, "c1"),
    ConfigApplied(FIRST, E, "c1"),
    ConfigFailed(FIRST, E, "c1", 500, None),
]
one_of_each = pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)


def fleet() -> dict[str, Endpoint]:
    return {endpoint_id: Endpoint.unseen() for endpoint_id in ENDPOINTS}


def for_one(event: Event, endpoint_id: str) -> Event:
    return event._replace(endpoint_ids=(endpoint_id,))


def registers(endpoint: Endpoint) -> tuple[Any, ...]:
    """Return what is a plain register: all but the disconnect, which depends on who held the session when it came."""
    connectivity, *others = endpoint.states
    return (connectivity.connected, *others, endpoint.last_event_seq, endpoint.last_event_at)


def stamps_held(endpoint: Endpoint) -> dict[str, Stamp | None]:
    connectivity, application, registration, metadata, configuration = endpoint.states
    return {
        "connected": connectivity.connected,
        "disconnected": connectivity.disconnected,
        "registered": registration.registered,
        "unregistered": registration.unregistered,
        "version": application.version and application.version.stamp,
        "previous": application.previous and application.previous.stamp,
        "metadata": metadata.changed,
        "available": configuration.available and configuration.available.stamp,
        "applied": configuration.applied and configuration.applied.stamp,
        "failed": configuration.failed and configuration.failed.stamp,
        **{f"key {name}": key.stamp for name, key in metadata.keys.items()},
    }


# What one event does.


def test_every_event_has_a_facet_that_it_may_change() -> None:
    assert {type(event) for event in ONE_OF_EACH} == EVENT_TYPES


@one_of_each
def test_an_endpoint_that_is_first_seen_by_any_event_has_a_state_from_then_on(event: Event) -> None:
    endpoint = folded([event])["e"]
    assert endpoint.changed == TOUCHED_FACETS[type(event)]
    assert (endpoint.last_event_seq, endpoint.last_event_at) == (1, 100)


@one_of_each
def test_facets_that_an_event_cannot_touch_need_not_be_loaded(event: Event) -> None:
    touched = TOUCHED_FACETS[type(event)]
    states = [facet.initial if touched & 1 << index else None for index, facet in enumerate(FACETS)]
    endpoint = Endpoint(states)
    fold([event], {"e": endpoint})
    assert endpoint.changed == touched


def test_a_disconnect_of_several_endpoints_closes_all_of_their_sessions_and_no_other() -> None:
    together = Disconnected(stamp(2, at=200), ("e1", "e2"))
    endpoints = folded([Connected(FIRST, ENDPOINTS, ""), together])
    assert [endpoints[endpoint_id].states[0].rests_on[0] for endpoint_id in ENDPOINTS] == [
        "disconnected",
        "disconnected",
        "connected",
    ]


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        pytest.param([Connected(stamp(2, 200), ("e1",), "")], Verdict.APPLIED, id="applied"),
        pytest.param([Connected(stamp(2, 50, "y"), ("e1",), "v1")], Verdict.LATE, id="late"),
        pytest.param([Disconnected(stamp(2, 200, "y"), ("e1",))], Verdict.FENCED, id="fenced"),
        pytest.param([Disconnected(stamp(2, 200, "y"), ("e1", "e2"))], Verdict.APPLIED, id="fenced-and-applied"),
        pytest.param([Disconnected(stamp(2, 200, "y"), ("e2", "e1"))], Verdict.APPLIED, id="applied-and-fenced"),
        pytest.param([Disconnected(stamp(2, 50, "y"), ("e3", "e1"))], Verdict.FENCED, id="late-and-fenced"),
        pytest.param([Connected(stamp(2, 50, "y"), ("e3",), "v1")], Verdict.APPLIED, id="late-for-one-facet-only"),
    ],
)
def test_an_event_is_counted_once_and_as_applied_if_it_changed_anything(events: list[Event], verdict: Verdict) -> None:
    endpoints = fleet()
    fold(
        [Connected(FIRST, ("e1",), "v1"), Connected(FIRST, ("e3",), ""), Disconnected(stamp(1, 150), ("e3",))],
        endpoints,
    )
    assert fold(events, endpoints) == Counter({(type(events[0]), verdict): 1})


def test_folding_no_events_changes_nothing() -> None:
    endpoints = folded(ONE_OF_EACH)
    endpoint = endpoints["e"]
    before, endpoint.changed = list(endpoint.states), 0
    assert fold([], endpoints) == Counter()
    assert all(after is state for after, state in zip(endpoint.states, before, strict=True))
    assert endpoint.changed == 0


def test_no_reducer_can_read_a_wall_clock() -> None:
    reducers = {reduce.__module__ for facet in FACETS for reduce in facet.reducers.values()}
    assert len(reducers) >= len(FACETS)
    modules = [import_module(name) for name in (*reducers, fold.__module__, supersedes.__module__)]
    assert not [module.__name__ for module in modules if {"time", "datetime"} & vars(module).keys()]


# A working copy of which only some states are loaded.

ALL = (1 << len(FACETS)) - 1
states_known = st.integers(0, ALL)


def knowing(facets: int, value: str) -> Endpoint:
    """Return an endpoint that has a state for these facets only; a text stands in for the state."""
    return Endpoint([value if facets & 1 << index else None for index in range(len(FACETS))])


def test_an_endpoint_that_no_event_has_named_has_no_last_event_and_no_change() -> None:
    unseen = Endpoint.unseen()
    assert (unseen.last_event_seq, unseen.last_event_at, unseen.changed) == (0, 0, 0)


@given(states_known, states_known)
def test_an_endpoint_lacks_the_facets_that_are_asked_for_and_not_loaded(known: int, wanted: int) -> None:
    assert knowing(known, "ours").lacking(wanted) == wanted & ~known


@given(states_known, states_known)
def test_complete_adds_missing_states_and_keeps_known_ones(ours: int, theirs: int) -> None:
    endpoint, other = knowing(ours, "ours"), knowing(theirs, "theirs")
    endpoint.complete(other)
    were = zip(knowing(ours, "ours").states, other.states, strict=True)
    assert endpoint.states == [mine or their for mine, their in were]
    assert other.states == knowing(theirs, "theirs").states


def test_states_that_do_not_match_the_facets_one_to_one_are_an_error() -> None:
    short = Endpoint([facet.initial for facet in FACETS[:-1]])
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        Endpoint.unseen().complete(short)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        _ = short.registers
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        short.kept(Trimmed(first=1))


@given(histories(), histories())
def test_folding_a_copy_leaves_the_original_unchanged(before: list[Event], then: list[Event]) -> None:
    endpoints = fleet()
    fold(before, endpoints)
    held = snapshot(endpoints)
    copies = {endpoint_id: endpoint.copy() for endpoint_id, endpoint in endpoints.items()}
    assert snapshot(copies) == held
    assert not any(copy.changed for copy in copies.values())
    fold(then, copies)
    assert snapshot(endpoints) == held
    assert snapshot(copies) == snapshot({**fleet(), **folded(before, then)})


@given(histories())
def test_the_registers_of_an_endpoint_are_those_that_hold_a_value(history: list[Event]) -> None:
    for endpoint in folded(history).values():
        held = [name for name, stamp in stamps_held(endpoint).items() if stamp is not None]
        in_the_other_facets = (len(FACETS) - 1) * ("unregistered" in held)
        assert endpoint.registers == len(held) + in_the_other_facets


@given(histories(), states_known)
def test_the_registers_of_facets_that_are_not_loaded_are_not_counted(history: list[Event], known: int) -> None:
    def only(endpoint: Endpoint, facets: int) -> Endpoint:
        return Endpoint([state if facets & 1 << index else None for index, state in enumerate(endpoint.states)])

    for endpoint in folded(history).values():
        assert only(endpoint, known).registers + only(endpoint, ~known).registers == endpoint.registers


# What is needed, known and loaded of several endpoints.


def test_missing_are_the_endpoints_that_are_not_known_and_the_facets_that_are_not_loaded() -> None:
    known = {"whole": knowing(ALL, "ours"), "partly": knowing(0b0101, "ours"), "enough": knowing(0b0011, "ours")}
    needed = {"whole": ALL, "partly": 0b0111, "enough": 0b0010, "unknown": 0b0110}
    assert missing(needed, known) == {"partly": 0b0010, "unknown": 0b0110}


def test_completed_returns_copies_of_known_endpoints_with_loaded_facets() -> None:
    known = {"whole": knowing(ALL, "ours"), "partly": knowing(ALL & ~0b0010, "ours"), "not needed": Endpoint.unseen()}
    loaded = {"partly": knowing(0b0010, "theirs"), "unknown": knowing(ALL, "theirs")}
    found = completed(("unknown", "whole", "partly"), known, loaded)
    assert found.keys() == {"whole", "partly", "unknown"}
    assert found["whole"].states == knowing(ALL, "ours").states
    assert found["partly"].states == [theirs or "ours" for theirs in loaded["partly"].states]
    assert found["unknown"].states == knowing(ALL, "theirs").states
    assert found["whole"] is not known["whole"]
    assert known["partly"].states == knowing(ALL & ~0b0010, "ours").states


# What holds for every stream.


@given(histories())
def test_same_stream_gives_the_same_state(history: list[Event]) -> None:
    assert snapshot(folded(history)) == snapshot(folded(history))


@given(histories(), st.integers(0, 10))
def test_batch_boundaries_do_not_change_the_state(history: list[Event], cut: int) -> None:
    assert snapshot(folded(history[:cut], history[cut:])) == snapshot(folded(history))


@given(histories())
def test_an_event_about_several_endpoints_is_one_event_about_each(history: list[Event]) -> None:
    apart = [for_one(event, endpoint_id) for event in history for endpoint_id in event.endpoint_ids]
    assert snapshot(folded(apart)) == snapshot(folded(history))


@given(histories())
def test_event_leaves_other_endpoints_unchanged(history: list[Event]) -> None:
    for endpoint_id, endpoint in folded(history).items():
        alone = folded(for_one(event, endpoint_id) for event in history if endpoint_id in event.endpoint_ids)
        assert snapshot(alone) == snapshot({endpoint_id: endpoint})


@given(histories())
def test_only_a_superseding_stamp_replaces_or_drops_a_register(history: list[Event]) -> None:
    endpoints = fleet()
    for event in history:
        before = {endpoint_id: stamps_held(endpoint) for endpoint_id, endpoint in endpoints.items()}
        fold([event], endpoints)
        for endpoint_id, endpoint in endpoints.items():
            after = stamps_held(endpoint)
            for register in {*before[endpoint_id], *after}:
                held, was = after.get(register), before[endpoint_id].get(register)
                if held is was:
                    continue
                assert held == event.stamp or (held is None and isinstance(event, Unregistered))
                # A disconnect of an earlier session gives way to any that ends the present one.
                assert supersedes(event.stamp, was) or register == "disconnected"


@given(histories())
def test_only_an_applied_event_changes_a_state_and_every_change_is_marked(history: list[Event]) -> None:
    endpoints = fleet()
    for event in history:
        before = {endpoint_id: list(endpoint.states) for endpoint_id, endpoint in endpoints.items()}
        ((_, verdict),) = fold([event], endpoints)
        changed = 0
        for endpoint_id, endpoint in endpoints.items():
            states = zip(before[endpoint_id], endpoint.states, strict=True)
            assert endpoint.changed == sum(1 << bit for bit, (was, now) in enumerate(states) if now is not was)
            changed |= endpoint.changed
            endpoint.changed = 0
        assert (changed != 0) == (verdict is Verdict.APPLIED)
        assert changed & ~TOUCHED_FACETS[type(event)] == 0


@given(histories(), histories())
def test_a_fold_does_not_touch_the_states_that_it_began_with(before: list[Event], then: list[Event]) -> None:
    endpoints = fleet()
    fold(before, endpoints)
    held = {endpoint_id: list(endpoint.states) for endpoint_id, endpoint in endpoints.items()}
    as_they_were = deepcopy(held)
    fold(then, endpoints)
    assert held == as_they_were


@given(histories())
def test_only_connect_disconnect_and_unregistration_change_the_status(
    history: list[Event],
) -> None:
    sessions = [event for event in history if isinstance(event, Connected | Disconnected | Unregistered)]
    alone = folded(sessions)
    for endpoint_id, endpoint in folded(history).items():
        expected = alone[endpoint_id].states[0] if endpoint_id in alone else FACETS[0].initial
        assert endpoint.states[0] == expected


@given(histories(), st.randoms(use_true_random=False))
def test_last_event_is_the_one_with_the_highest_position_for_any_verdict(history: list[Event], random: Random) -> None:
    arrivals = random.sample(history, len(history))
    for endpoint_id, endpoint in folded(arrivals).items():
        last = max(event.stamp for event in history if endpoint_id in event.endpoint_ids)
        assert (endpoint.last_event_seq, endpoint.last_event_at) == (last.position, last.occurred_at)


@given(histories())
def test_unregistration_removes_everything_it_supersedes_from_every_facet(history: list[Event]) -> None:
    for endpoint in folded(history).values():
        ended = stamps_held(endpoint)["unregistered"]
        assert {state.unregistered for state in endpoint.states} == {ended}
        for held in stamps_held(endpoint).values():
            assert ended is None or held is None or held is ended or supersedes(held, ended)


@given(histories())
def test_event_that_does_not_supersede_the_unregistration_changes_nothing(history: list[Event]) -> None:
    endpoints = fleet()
    for event in history:
        before = {endpoint_id: list(endpoint.states) for endpoint_id, endpoint in endpoints.items()}
        over = {
            endpoint_id: not supersedes(event.stamp, endpoint.states[0].unregistered)
            for endpoint_id, endpoint in endpoints.items()
        }
        fold([event], endpoints)
        for endpoint_id, endpoint in endpoints.items():
            unchanged = all(now is was for now, was in zip(endpoint.states, before[endpoint_id], strict=True))
            assert unchanged or not over[endpoint_id]


@given(histories())
def test_life_after_an_unregistration_is_that_of_an_unseen_endpoint(history: list[Event]) -> None:
    last = history[-1].stamp
    ended = Unregistered(Stamp(last.position + 1, max(event.stamp.occurred_at for event in history), "epr", "z"), E)
    shifted = [
        event._replace(
            stamp=event.stamp._replace(
                position=event.stamp.position + ended.stamp.position,
                occurred_at=event.stamp.occurred_at + ended.stamp.occurred_at,
            ),
            endpoint_ids=E,
        )
        for event in history
    ]
    former = [event._replace(endpoint_ids=E) for event in history]
    anew, unseen = folded(former, [ended], shifted), folded(shifted)
    if any(isinstance(event, Unregistered) for event in shifted):
        assert snapshot(anew) == snapshot(unseen)
    else:
        after = {key: held for key, held in stamps_held(anew["e"]).items() if key != "unregistered"}
        assert after == {key: held for key, held in stamps_held(unseen["e"]).items() if key != "unregistered"}


@given(histories())
def test_disconnect_ends_its_session_regardless_of_earlier_disconnects(history: list[Event]) -> None:
    endpoints = fleet()
    for event in history:
        opened = {endpoint_id: endpoint.states[0].connected for endpoint_id, endpoint in endpoints.items()}
        ended = {endpoint_id: endpoint.states[0].unregistered for endpoint_id, endpoint in endpoints.items()}
        fold([event], endpoints)
        if not isinstance(event, Disconnected):
            continue
        for endpoint_id in event.endpoint_ids:
            held = opened[endpoint_id]
            if (
                held is not None
                and not from_other_replica(event.stamp, held)
                and supersedes(event.stamp, held)
                and supersedes(event.stamp, ended[endpoint_id])
            ):
                assert endpoints[endpoint_id].states[0].rests_on[0] == "disconnected"


@given(histories())
def test_an_endpoint_is_disconnected_only_by_a_disconnect_that_ends_its_session(history: list[Event]) -> None:
    for endpoint_id, endpoint in folded(history).items():
        state = endpoint.states[0]
        if state.connected is None or state.rests_on[0] == "connected":
            continue
        assert any(
            isinstance(event, Disconnected)
            and endpoint_id in event.endpoint_ids
            and not from_other_replica(event.stamp, state.connected)
            and supersedes(event.stamp, state.connected)
            for event in history
        )


# What holds while the clock of every replica is monotone.


@given(histories(monotone=True), st.randoms(use_true_random=False))
def test_with_monotone_clocks_registers_do_not_depend_on_the_order_of_arrival(
    history: list[Event], random: Random
) -> None:
    in_order, shuffled = folded(history), folded(random.sample(history, len(history)))
    assert in_order.keys() == shuffled.keys()
    for endpoint_id, endpoint in in_order.items():
        assert registers(endpoint) == registers(shuffled[endpoint_id])


@given(histories(monotone=True), st.integers(0, 9))
def test_with_monotone_clocks_an_old_dead_letter_that_is_retried_overwrites_nothing_newer(
    history: list[Event], which: int
) -> None:
    parked = history[which % len(history)]
    others = [event for event in history if event is not parked]
    rebuilt, retried = folded(history), folded(others, [parked])
    assert rebuilt.keys() == retried.keys()
    for endpoint_id, endpoint in rebuilt.items():
        assert registers(endpoint) == registers(retried[endpoint_id])


@given(histories(monotone=True, unknown_replicas=False), st.integers(0, 10))
def test_with_monotone_clocks_of_known_replicas_redelivery_of_any_suffix_of_a_life_changes_nothing(
    history: list[Event], start: int
) -> None:
    history = [event for event in history if not isinstance(event, Unregistered)]
    endpoints = folded(history)
    before = snapshot(endpoints)
    verdicts = fold(history[start:], endpoints)
    assert snapshot(endpoints) == before
    assert Verdict.APPLIED not in {verdict for _, verdict in verdicts}


# What does not hold, and is why the application refuses a position that is already folded.


def test_positions_guard_redelivery_since_an_unregistration_drops_the_connect_that_fenced_a_disconnect() -> None:
    history: list[Event] = [
        Connected(stamp(1, at=10, replica="x"), E, ""),
        Connected(stamp(2, at=20, replica="y"), E, ""),
        Disconnected(stamp(3, at=40, replica="x"), E),
        Unregistered(stamp(4, at=30, replica="y"), E),
    ]
    endpoints = folded(history)
    assert endpoints["e"].states[0].rests_on[0] == "unknown"
    fold(history[2:], endpoints)
    assert endpoints["e"].states[0].rests_on[0] == "disconnected"


def test_positions_guard_redelivery_since_a_clock_that_stepped_back_lets_an_old_event_win_again() -> None:
    history = [
        ConfigAvailable(stamp(1, at=100, replica="x"), E, "from x"),
        ConfigAvailable(stamp(2, at=90, replica="y"), E, "from y, late"),
        ConfigAvailable(stamp(3, at=50, replica="x"), E, "from x, whose clock stepped back"),
    ]
    endpoints = folded(history)
    assert endpoints["e"].states[4].available.value == "from x, whose clock stepped back"
    fold(history[1:], endpoints)
    assert endpoints["e"].states[4].available.value == "from y, late"


def test_positions_guard_redelivery_since_an_unknown_replica_fences_nothing() -> None:
    history: list[Event] = [
        Connected(stamp(1, at=10, replica="y"), E, ""),
        Disconnected(stamp(2, at=30, replica="x"), E),
        Connected(stamp(3, at=20, replica=None), E, ""),
    ]
    endpoints = folded(history)
    assert endpoints["e"].states[0].rests_on == ("connected", history[2].stamp)
    fold(history[1:], endpoints)
    assert endpoints["e"].states[0].rests_on == ("disconnected", history[1].stamp)


# What is left of an endpoint before a position.


@given(histories(), st.integers(1, 11))
def test_before_a_position_the_registers_set_at_earlier_ones_are_left_as_they_are(
    history: list[Event], position: int
) -> None:
    for endpoint in folded(history).values():
        left = {name: held for name, held in stamps_held(endpoint).items() if held and held.position < position}
        known = endpoint.kept(Trimmed(first=position))
        if known is None:
            assert not left
            continue
        latest = max(left.values())
        last = (endpoint.last_event_seq, endpoint.last_event_at)
        assert {name: held for name, held in stamps_held(known).items() if held} == left
        assert (known.last_event_seq, known.last_event_at) == (last if last[0] < position else latest[:2])
        states = zip(known.states, Endpoint.unseen().states, strict=True)
        assert known.changed == sum(1 << index for index, (state, unseen) in enumerate(states) if state != unseen)


@given(histories())
def test_every_value_from_before_the_end_of_the_stream_is_kept(history: list[Event]) -> None:
    for endpoint in folded(history).values():
        known = endpoint.kept(Trimmed(first=len(history) + 1))
        assert known is not None
        assert snapshot({"e": known}) == snapshot({"e": endpoint})


def test_before_a_position_an_endpoint_keeps_its_earlier_registers_and_the_latest_event_they_are_from() -> None:
    endpoint = folded(
        [
            Connected(stamp(1, at=100), E, "v1"),
            ConfigAvailable(stamp(2, at=300), E, "c1"),
            ConfigAvailable(stamp(3, at=400), E, "c2"),
            AppVersionUpdated(stamp(4, at=500), E, "v2", "v1"),
            Disconnected(stamp(5, at=600), E),
        ]
    )["e"]
    known = endpoint.kept(Trimmed(first=3))
    assert known is not None
    connectivity, *others = known.states
    assert (connectivity.connected, connectivity.disconnected) == (stamp(1, at=100), None)
    assert others == Endpoint.unseen().states[1:]
    assert (known.changed, known.last_event_seq, known.last_event_at) == (0b0001, 1, 100)


def test_before_a_position_that_no_event_has_reached_the_latest_event_stays() -> None:
    endpoint = folded([Connected(stamp(1, at=100), E, ""), Disconnected(stamp(2, at=50), E)])["e"]
    known = endpoint.kept(Trimmed(first=3))
    assert known is not None
    assert (known.changed, known.last_event_seq, known.last_event_at) == (0b0001, 2, 50)


def test_nothing_is_known_from_before_the_first_event() -> None:
    assert folded(ONE_OF_EACH)["e"].kept(Trimmed(first=1)) is None
    assert Endpoint.unseen().kept(Trimmed(first=9)) is None


# What is recorded of it.


def recorded(endpoint: Endpoint, *events: Event) -> list[Change]:
    changes: list[Change] = []
    fold(events, {"e": endpoint}, changes)
    return changes


def test_a_change_holds_the_states_before_and_after() -> None:
    endpoint = Endpoint.unseen()
    event = Disconnected(FIRST, E)
    (change,) = recorded(endpoint, event)
    assert change == Change(
        event, "e", 0, Verdict.APPLIED, FACETS[0].initial, endpoint.states[0], previous_seq=0, previous_at=0
    )


@one_of_each
def test_a_change_is_recorded_for_every_facet_that_the_event_names(event: Event) -> None:
    changes = recorded(Endpoint.unseen(), event)
    assert sum(1 << change.facet for change in changes) == TOUCHED_FACETS[type(event)]
    assert {change.verdict for change in changes} == {Verdict.APPLIED}


@pytest.mark.parametrize(
    "event", [Connected(FIRST, E, ""), Registered(FIRST, E, "")], ids=lambda event: type(event).__name__
)
def test_an_event_without_a_version_does_not_name_the_application(event: Event) -> None:
    assert "application" not in {FACETS[change.facet].name for change in recorded(Endpoint.unseen(), event)}


def test_a_rejected_event_is_recorded_with_its_verdict_and_without_a_change() -> None:
    endpoint = Endpoint.unseen()
    held = Connected(stamp(1, at=100, replica="r1"), E, "")
    fenced = Disconnected(stamp(2, at=200, replica="r2"), E)
    late = Connected(stamp(3, at=50, replica="r3"), E, "")
    applied, *rejected = recorded(endpoint, held, fenced, late)
    assert [(change.verdict, change.before) for change in rejected] == [
        (Verdict.FENCED, applied.after),
        (Verdict.LATE, applied.after),
    ]
    assert all(change.after is change.before for change in rejected)


def test_an_event_of_a_life_that_is_over_is_recorded_as_late() -> None:
    ended = Unregistered(stamp(2, at=200), E)
    (change,) = recorded(folded([ended])["e"], Connected(stamp(3, at=100, replica="other"), E, ""))
    assert (change.verdict, change.after) == (Verdict.LATE, change.before)


def test_a_change_holds_the_latest_event_before_it() -> None:
    first, late, last = (Disconnected(stamp(position, at=position * 10), E) for position in (5, 3, 7))
    changes = recorded(Endpoint.unseen(), first, late, last)
    assert [(change.previous_seq, change.previous_at) for change in changes] == [(0, 0), (5, 50), (5, 50)]
