"""The events behind the columns of a row: from its present registers, and from the log of changes."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from projector.domain import explanation
from projector.domain.attribution import Cause, Trail
from projector.domain.endpoint import EVENT_TYPES, FACETS, Endpoint
from projector.domain.events import (
    AppVersionUpdated,
    Connected,
    Disconnected,
    Event,
    MetadataUpdated,
    Registered,
    Unregistered,
)
from projector.domain.explanation import (
    UNSEEN,
    attributed,
    difference,
    extend,
    parts_of,
    recalled,
    shown_by,
    shown_in,
    trail_of,
    undone,
    why_logged,
)
from projector.domain.stamps import Stamp
from tests.support.explained import (
    T1,
    T2,
    changes_of,
    columns_of,
    connected,
    disconnected,
    logged,
    metadata,
    read_from_log,
    unregistered,
)
from tests.support.strategies import stamp

KINDS = {"connectivity.connected": (Connected,), "registered": (Registered,)}


def endpoint_after(*events: Event) -> Endpoint:
    return changes_of(*events)[0]["e"]


VALUES = MetadataUpdated(stamp(1000, 200), ("e",), {"a": "1.50", "b": None}, ("c",))
BUSY = endpoint_after(connected(1, 100, version="v1"), VALUES)


# From the registers.


def test_a_row_as_it_is_read_from_the_database_rests_on_the_events_of_the_registers() -> None:
    shown = shown_by(BUSY)
    assert attributed(BUSY.states, json.loads(json.dumps(shown, default=float))) == attributed(BUSY.states, shown)


@pytest.mark.parametrize(
    "tampered",
    [{"a": 1.5}, {"a": 1.5, "b": None, "d": 1}, {"a": 2, "b": None}, {"a": 1, "b": None}, {"a": 1.5, "d": 1}],
)
def test_metadata_with_other_keys_or_values_than_the_registers_has_no_event(tampered: dict[str, Any]) -> None:
    shown = {**shown_by(BUSY), "metadata": tampered}
    assert attributed(BUSY.states, shown)["metadata"] == (tampered, None)
    assert attributed(BUSY.states, {**shown, "metadata": {"a": 1.5, "b": None}})["metadata"][1] is not None


def test_the_last_event_is_the_one_that_a_register_holds_from_its_position() -> None:
    columns = columns_of(endpoint_after(connected(1, 100), metadata(2, 50, "y", "a"), disconnected(3, 200)))
    latest = Cause(stamp(3, 200), (Disconnected,))
    assert columns["last_event_seq"] == (3, latest)
    assert columns["last_event_at"] == (200, latest)


def test_the_last_event_is_of_any_type_if_no_register_holds_it() -> None:
    columns = columns_of(endpoint_after(connected(1, 100), connected(2, 50, "y")))
    value, cause = columns["last_event_seq"]
    assert value == 2
    assert cause.stamp == Stamp(2, 50, "", None)
    assert set(cause.kinds) == EVENT_TYPES


def test_an_endpoint_that_no_event_has_named_has_no_last_event() -> None:
    columns = columns_of(Endpoint.unseen())
    assert {cause for _, cause in columns.values()} == {None}
    assert columns["last_event_seq"] == (0, None)


def test_each_key_has_its_parsed_value_and_its_event() -> None:
    parts = parts_of(BUSY)
    assert {name: (part.present, part.value) for name, part in parts.items()} == {
        "a": (True, 1.5),
        "b": (True, None),
        "c": (False, None),
    }
    assert {part.cause for part in parts.values()} == {Cause(stamp(1000, 200), (MetadataUpdated,))}


def test_the_present_registers_tell_the_events_that_set_them() -> None:
    trail = trail_of(endpoint_after(unregistered(1, 50), connected(2, 100, version="v1")))
    assert trail.at("connectivity", 9, 100, (Connected,)) == stamp(2, 100)
    assert trail.at("application", 9, 100, (AppVersionUpdated,)) == stamp(2, 100)
    assert {trail.at(facet.name, 9, 50, (Unregistered,)) for facet in FACETS} == {stamp(1, 50)}
    assert not trail.missed


def test_a_row_that_is_gone_tells_no_event() -> None:
    trail = trail_of(None)
    assert trail.at("connectivity", 9, 100, (Connected,)) == Stamp(0, 100, "", None)
    assert trail.missed == {100}


@pytest.mark.parametrize(
    "read",
    [
        lambda states: attributed(states, UNSEEN),
        lambda states: shown_by(Endpoint(states)),
        lambda states: parts_of(Endpoint(states)),
        lambda states: trail_of(Endpoint(states)),
    ],
)
def test_states_that_do_not_match_the_facets_one_to_one_cannot_be_explained(read: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="zip"):
        read(Endpoint.unseen().states[:-1])


def test_a_facet_that_has_not_one_value_for_each_column_cannot_be_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = FACETS
    wrong = replace(first, columns=first.columns[:-1])
    shown = shown_by(BUSY)
    monkeypatch.setattr(explanation, "FACETS", (wrong, *others))
    for read in (lambda: attributed(BUSY.states, shown), lambda: shown_by(BUSY)):
        with pytest.raises(ValueError, match="zip"):
            read()
    with pytest.raises(ValueError, match="zip"):
        difference(wrong, BUSY.states[0], BUSY.states[0])


# From the log.


APPLIED = logged(
    facet="connectivity", verdict=read_from_log("applied"), event="connectivity.connected", position=3,
    occurred_at=200, originator="kpc", replica="x",
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        APPLIED._replace(verdict="late"),
        APPLIED._replace(verdict="fenced"),
        APPLIED._replace(verdict="corrected"),
        APPLIED._replace(verdict="unheard-of"),
        APPLIED._replace(event=None),
        APPLIED._replace(event="of a later version"),
        APPLIED._replace(position=None),
        APPLIED._replace(occurred_at=None),
        APPLIED._replace(originator=None),
        APPLIED._replace(facet="metadata"),
    ],
)
def test_only_an_applied_event_of_a_known_type_extends_the_trail(change: Any) -> None:
    trail = Trail()
    extend(trail, [change], KINDS)
    assert trail.at("connectivity", 9, 200, (Connected,)) == Stamp(0, 200, "", None)
    extend(trail, [change, APPLIED], KINDS)
    assert trail.at("connectivity", 9, 200, (Connected,)) == stamp(3, 200)
    assert trail.newest("connectivity", 9, Connected) == stamp(3, 200)


def test_times_of_a_logged_row_are_parsed_and_other_columns_are_not() -> None:
    assert shown_in({"connected_at": T1, "unregistered_at": None, "app_version": T1}) == {
        "connected_at": 100,
        "unregistered_at": None,
        "app_version": T1,
    }


def test_undoing_a_change_restores_the_columns_before_it() -> None:
    shown = {**UNSEEN, "connected_at": 200, "app_version": "v2", "last_event_seq": 3, "last_event_at": 200}
    change = APPLIED._replace(
        before={"connected_at": T1}, after={"connected_at": T2}, previous_event_seq=2, previous_event_at=100
    )
    before = {**shown, "connected_at": 100, "last_event_seq": 2, "last_event_at": 100}
    assert undone(shown, change) == before
    assert undone(shown, change._replace(before=None)) == {**before, "connected_at": None}
    assert undone(shown, change._replace(before=None, facet="of a later version")) == {**before, "connected_at": 200}
    assert undone(shown, change._replace(before=None, after=None)) == {**before, "connected_at": 200}


def test_an_applied_change_needs_no_sentence() -> None:
    assert why_logged(APPLIED, UNSEEN, Trail(), (Connected,)) is None
    assert why_logged(APPLIED._replace(verdict="late", position=None), UNSEEN, Trail(), (Connected,)) is None


def test_a_rejection_is_explained_by_the_event_that_the_row_showed() -> None:
    held = {**UNSEEN, "connected_at": 200, "connected_originator": "kpc", "connected_replica": "y", "last_event_seq": 2}
    trail = Trail()
    trail.add("connectivity", Cause(stamp(2, 200, "y"), (Connected,)))
    late = APPLIED._replace(verdict=read_from_log("late"), occurred_at=100)
    assert why_logged(late, held, trail, (Connected,)) == (f"late: a connect from kpc/y at {T2} (position 2) is newer")
    after = {**held, "last_event_seq": 1}  # the row did not rest on this event yet
    assert why_logged(late, after, trail, (Connected,)) == f"late: a connect from kpc/y at {T2} is newer"


def test_a_row_is_recalled_from_the_events_up_to_its_position() -> None:
    trail = Trail()
    trail.add("connectivity", Cause(stamp(2, 100), (Connected,)))
    trail.add("connectivity", Cause(stamp(5, 100, "y"), (Connected,)))
    shown = {**shown_by(endpoint_after(connected(2, 100))), "last_event_seq": 3}
    assert recalled(shown, trail)[0].connected == stamp(2, 100)


def test_a_difference_holds_the_columns_that_changed_as_the_log_writes_them() -> None:
    facet = FACETS[3]
    before, after = (endpoint.states[3] for endpoint in (endpoint_after(metadata(1, 100, "x", "b")), BUSY))
    was, now = difference(facet, before, after)
    assert was == {"metadata": {"b": None}, "metadata_changed_at": T1}
    assert now == {"metadata": {"a": 1.5, "b": None}, "metadata_changed_at": T2}
    assert difference(facet, after, after) == ({}, {})
