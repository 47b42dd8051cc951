from collections.abc import Mapping

import pytest

from projector.domain.events import Json, MetadataUpdated, Unregistered
from projector.domain.facets import Verdict
from projector.domain.metadata import FACET, Key, Metadata
from projector.domain.stamps import Stamp
from tests.support.strategies import given_events, stamp, when


def update(at: Stamp, present: Mapping[str, Json] | None = None, removed: tuple[str, ...] = ()) -> MetadataUpdated:
    return MetadataUpdated(at, ("e",), present or {}, removed)


FIRST, SECOND, THIRD = stamp(1, at=100, replica="x"), stamp(2, at=200, replica="y"), stamp(3, at=300, replica="z")
LATE = stamp(4, at=50, replica="w")


def test_an_endpoint_without_metadata_has_no_keys() -> None:
    assert given_events(FACET).values == {}


@pytest.mark.parametrize("value", [None, "0", '""', "[1.50, null]"])
def test_a_present_key_has_the_json_value_of_its_event(value: Json) -> None:
    assert given_events(FACET, update(FIRST, {"site": value})).values == {"site": value}


def test_each_key_is_an_independent_register() -> None:
    state = given_events(FACET, update(SECOND, {"site": "2"}), update(FIRST, {"site": "1", "serial": "1"}))
    assert state.values == {"site": "2", "serial": "1"}


def test_a_removed_key_is_gone_and_the_others_stay() -> None:
    state = given_events(FACET, update(FIRST, {"site": "1", "serial": "1"}), update(SECOND, removed=("site",)))
    assert state.values == {"serial": "1"}


@pytest.mark.parametrize("before", [[update(FIRST, {"site": "1"})], []], ids=["known-key", "key-never-heard-of"])
def test_late_addition_does_not_restore_a_removed_key(before: list[MetadataUpdated]) -> None:
    held = given_events(FACET, *before, update(SECOND, removed=("site",)))
    assert held.keys == {"site": Key(present=False, value=None, stamp=SECOND)}
    assert when(FACET, held, update(LATE, {"site": "9"})) == (held, Verdict.LATE)


def test_newer_addition_restores_a_removed_key() -> None:
    assert given_events(FACET, update(FIRST, removed=("site",)), update(SECOND, {"site": "2"})).values == {"site": "2"}


def test_late_removal_does_not_remove_a_newer_key() -> None:
    held = given_events(FACET, update(SECOND, {"site": "2"}))
    assert when(FACET, held, update(LATE, removed=("site",))) == (held, Verdict.LATE)


def test_event_without_keys_updates_the_time_of_change() -> None:
    held = given_events(FACET, update(FIRST, {"site": "1"}))
    state, verdict = when(FACET, held, update(SECOND))
    assert (state.keys, state.changed, verdict) == (held.keys, SECOND, Verdict.APPLIED)


def test_late_event_about_another_key_does_not_reset_the_time_of_change() -> None:
    held = given_events(FACET, update(THIRD, {"site": "3"}))
    state, verdict = when(FACET, held, update(LATE, {"serial": "1"}))
    assert (state.values, state.changed, verdict) == ({"site": "3", "serial": "1"}, THIRD, Verdict.APPLIED)


def test_update_does_not_mutate_the_previous_state() -> None:
    held = given_events(FACET, update(FIRST, {"site": "1"}))
    when(FACET, held, update(SECOND, {"serial": "1"}, removed=("site",)))
    assert held.values == {"site": "1"}


def test_an_unregistration_drops_keys_and_tombstones_and_keeps_what_is_newer() -> None:
    ended = stamp(4, at=200, replica="w")
    held = given_events(FACET, update(FIRST, {"site": "1"}, removed=("fw",)), update(THIRD, {"serial": "3"}))
    state, verdict = when(FACET, held, Unregistered(ended, ("e",)))
    assert (list(state.keys), state.changed, verdict) == (["serial"], THIRD, Verdict.APPLIED)
    assert when(FACET, state, update(stamp(5, at=150), {"fw": "1"})) == (state, Verdict.LATE)
    state, _ = when(FACET, state, Unregistered(stamp(6, at=400, replica="w"), ("e",)))
    assert state == Metadata({}, None, stamp(6, at=400, replica="w"))
