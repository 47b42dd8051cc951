"""The events behind the values that a row had once."""

from projector.domain.attribution import Cause, Trail, caused
from projector.domain.events import AppVersionUpdated, Connected, Disconnected, Registered
from projector.domain.stamps import Register, Stamp
from tests.support.strategies import stamp

FACET = "application"


def trail(*causes: tuple[Stamp, type]) -> Trail:
    found = Trail()
    for at, kind in causes:
        found.add(FACET, Cause(at, (kind,)))
    return found


def test_a_value_that_no_event_has_set_has_no_cause() -> None:
    assert caused(None, Connected) is None


def test_the_cause_of_a_register_is_that_of_its_stamp() -> None:
    held = stamp(3, at=100)
    expected = Cause(held, (Connected, Registered))
    assert caused(held, Connected, Registered) == caused(Register("v1", held), Connected, Registered) == expected


def test_the_event_at_a_time_is_the_latest_up_to_the_position() -> None:
    first, second, third = (stamp(position, at=100, replica=f"r{position}") for position in (2, 4, 6))
    found = trail((second, Connected), (third, Connected), (first, Connected))
    assert found.at(FACET, 5, 100, (Connected,)) == second
    assert found.at(FACET, 4, 100, (Connected,)) == second
    assert found.at(FACET, 3, 100, (Connected,)) == first
    assert found.seen_from(FACET, 9).at(100, Connected) == third
    assert not found.missed


def test_an_event_of_another_type_or_time_or_facet_or_after_the_position_is_not_found() -> None:
    found = trail((stamp(3, at=100), Connected))
    unknown = Stamp(0, 100, "", None)
    assert found.at(FACET, 9, 100, (Disconnected,)) == unknown
    assert found.at("connectivity", 9, 100, (Connected,)) == unknown
    assert found.at(FACET, 2, 100, (Connected,)) == unknown
    assert found.missed == {100}
    assert found.at(FACET, 9, 101, (Connected,)) == Stamp(0, 101, "", None)
    assert found.missed == {100, 101}
    assert found.at(FACET, 9, 100, (Disconnected, Connected)) == stamp(3, at=100)


def test_a_column_without_a_time_has_no_event_and_misses_none() -> None:
    found = trail((stamp(3, at=100), Connected))
    assert found.seen_from(FACET, 9).at(None, Connected) is None
    assert not found.missed


def test_the_newest_event_supersedes_all_others_of_its_type() -> None:
    by_time, by_position = stamp(2, at=300, replica="x"), stamp(4, at=200, replica="y")
    found = trail((by_position, AppVersionUpdated), (by_time, AppVersionUpdated), (stamp(5, at=900), Connected))
    assert found.newest(FACET, 9, AppVersionUpdated) == by_time
    assert found.seen_from(FACET, 2).newest(AppVersionUpdated) == by_time
    assert found.newest(FACET, 1, AppVersionUpdated) is None
    assert found.newest("connectivity", 9, AppVersionUpdated) is None


def test_the_newest_event_is_found_in_stream_order_although_a_clock_stepped_back() -> None:
    held = [stamp(1, at=300, replica="x"), stamp(2, at=500, replica="y"), stamp(3, at=100, replica="y")]
    for first, second, third in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        found = trail(*((held[number], AppVersionUpdated) for number in (first, second, third)))
        assert found.newest(FACET, 9, AppVersionUpdated) == held[2]


def test_an_event_of_one_of_several_types_is_found_at_its_time_and_is_never_the_newest() -> None:
    found = Trail()
    found.add(FACET, Cause(stamp(3, at=100), (Connected, AppVersionUpdated)))
    found.add(FACET, None)
    assert found.at(FACET, 3, 100, (AppVersionUpdated,)) == stamp(3, at=100)
    assert found.newest(FACET, 9, AppVersionUpdated) is found.newest(FACET, 9, Connected) is None
