import json
from itertools import permutations

import pytest
from hypothesis import given

from projector.domain.stamps import (
    Register,
    Stamp,
    from_other_replica,
    kept,
    occurred_at,
    register_kept,
    supersedes,
    take,
)
from projector.domain.trimmed import Trimmed
from tests.support.strategies import stamp, stamps

STORED_AT = 1_700_000_000_000


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        pytest.param(STORED_AT - 1, STORED_AT - 1, id="before-it-was-stored"),
        pytest.param(STORED_AT, STORED_AT, id="as-it-was-stored"),
        pytest.param(1, 1, id="the-first-millisecond"),
    ],
)
def test_an_event_occurred_at_its_own_timestamp(timestamp: int, expected: int) -> None:
    assert occurred_at(timestamp, STORED_AT) == expected


@pytest.mark.parametrize("timestamp", [STORED_AT + 1, 2**63 - 1])
def test_an_event_never_occurred_later_than_it_was_stored(timestamp: int) -> None:
    assert occurred_at(timestamp, STORED_AT) == STORED_AT


@pytest.mark.parametrize("timestamp", [0, -1, -(2**63)])
def test_stored_time_replaces_a_timestamp_of_0_or_less(timestamp: int) -> None:
    assert occurred_at(timestamp, STORED_AT) == STORED_AT


@pytest.mark.parametrize("replica", ["x", None])
def test_any_stamp_supersedes_none(replica: str | None) -> None:
    assert supersedes(stamp(1, at=1, replica=replica), None)


@pytest.mark.parametrize("at", [50, 100, 150], ids=["stepped-back", "stood-still", "went-on"])
def test_within_one_replica_stream_order_decides_regardless_of_its_clock(at: int) -> None:
    earlier, later = stamp(1, at=100), stamp(2, at=at)
    assert supersedes(later, earlier)
    assert not supersedes(earlier, later)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("x", "kpc"), ("y", "kpc"), id="other-replica"),
        pytest.param(("x", "kpc"), ("x", "epr"), id="same-replica-id-of-another-originator"),
        pytest.param((None, "kpc"), ("x", "kpc"), id="one-unknown"),
        pytest.param((None, "kpc"), (None, "kpc"), id="both-unknown"),
    ],
)
class TestUnlessBothAreFromOneKnownOrigin:
    def test_later_time_supersedes(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        newer, older = stamp(1, 101, *one), stamp(2, 100, *other)
        assert supersedes(newer, older)
        assert not supersedes(older, newer)

    def test_higher_position_supersedes_at_equal_times(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        earlier, later = stamp(1, 100, *one), stamp(2, 100, *other)
        assert supersedes(later, earlier)
        assert not supersedes(earlier, later)


@given(stamps(monotone=False))
def test_of_two_messages_exactly_one_supersedes_the_other_and_none_itself(found: list[Stamp]) -> None:
    assert all(supersedes(one, other) != supersedes(other, one) for one, other in permutations(found, 2))
    assert not any(supersedes(one, one) for one in found)


@given(stamps(monotone=True))
def test_while_clocks_are_monotone_supersedes_is_one_order_of_time_and_position(found: list[Stamp]) -> None:
    for one, other in permutations(found, 2):
        assert supersedes(one, other) == ((one.occurred_at, one.position) > (other.occurred_at, other.position))


def test_supersedes_is_cyclic_when_a_clock_steps_back() -> None:
    before, elsewhere, stepped_back = stamp(1, 100, "x"), stamp(2, 90, "y"), stamp(3, 50, "x")
    assert supersedes(before, elsewhere)
    assert supersedes(elsewhere, stepped_back)
    assert supersedes(stepped_back, before)


@pytest.mark.parametrize(
    ("other", "known_to_differ"),
    [
        pytest.param(stamp(2, 2, "x", "kpc"), False, id="same-origin"),
        pytest.param(stamp(2, 2, "y", "kpc"), True, id="other-replica"),
        pytest.param(stamp(2, 2, "x", "epr"), True, id="same-replica-id-of-another-originator"),
        pytest.param(stamp(2, 2, None, "kpc"), False, id="unknown-replica"),
        pytest.param(stamp(2, 2, None, "epr"), False, id="unknown-replica-of-another-originator"),
    ],
)
def test_replicas_differ_only_if_both_are_known(other: Stamp, known_to_differ: bool) -> None:
    one = stamp(1, 1, "x", "kpc")
    assert from_other_replica(one, other) is known_to_differ
    assert from_other_replica(other, one) is known_to_differ


def test_superseding_stamp_sets_a_register_and_a_late_one_does_not() -> None:
    held = Register("old", stamp(1, 100, "x"))
    assert take(None, "old", held.stamp) == held
    assert take(held, "new", stamp(2, 101, "y")) == Register("new", stamp(2, 101, "y"))
    assert take(held, "late", stamp(2, 99, "y")) is held


def test_origins_are_compared_by_text_not_identity() -> None:
    held = stamp(1, at=100, replica="kpc-1")
    later = stamp(2, at=50, replica="kpc-1")
    read_back = Stamp(*json.loads(json.dumps(later)))
    assert read_back.replica is not held.replica
    assert supersedes(read_back, held)
    assert not from_other_replica(read_back, held)


@pytest.mark.parametrize(
    ("position", "stays"),
    [
        pytest.param(299, False, id="of-a-later-position"),
        pytest.param(300, False, id="of-this-position"),
        pytest.param(301, True, id="of-an-earlier-position"),
    ],
)
def test_values_set_before_the_stream_begins_are_kept(position: int, stays: bool) -> None:
    held = stamp(300, at=1)
    register = Register("value", held)
    assert kept(held, Trimmed(first=position)) == (held if stays else None)
    assert register_kept(register, Trimmed(first=position)) == (register if stays else None)


def test_a_value_that_was_never_set_is_not_kept() -> None:
    assert kept(None, Trimmed(first=1)) is None
    assert register_kept(None, Trimmed(first=1)) is None


def test_values_set_by_deleted_messages_are_kept() -> None:
    trimmed = Trimmed(first=3, deleted=frozenset({5}))
    assert [position for position in range(1, 8) if kept(stamp(position, 1, "x"), trimmed)] == [1, 2, 5]
