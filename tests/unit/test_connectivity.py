import pytest

from projector.domain.connectivity import FACET, Connectivity
from projector.domain.events import Connected, Disconnected, Event, Unregistered
from projector.domain.facets import Verdict
from tests.support.strategies import given_events, stamp, when


def opens(position: int, at: int, replica: str | None = "x", originator: str = "kpc") -> Connected:
    return Connected(stamp(position, at, replica, originator), ("e",), "")


def closes(position: int, at: int, replica: str | None = "x", originator: str = "kpc") -> Disconnected:
    return Disconnected(stamp(position, at, replica, originator), ("e",))


def test_an_endpoint_that_neither_connected_nor_disconnected_is_unknown() -> None:
    assert given_events(FACET).rests_on == ("unknown", None)


def test_connect_opens_a_session_held_by_its_origin() -> None:
    opened = opens(1, at=100)
    state, verdict = when(FACET, given_events(FACET), opened)
    assert (state, verdict) == (Connectivity(connected=opened.stamp), Verdict.APPLIED)
    assert state.rests_on == ("connected", opened.stamp)


def test_a_newer_connect_moves_the_session_to_its_origin() -> None:
    moved = opens(2, at=200, replica="y")
    assert given_events(FACET, opens(1, at=100, replica="x"), moved).rests_on == ("connected", moved.stamp)


def test_late_connect_does_not_move_the_session() -> None:
    held = given_events(FACET, opens(1, at=200, replica="y"))
    assert when(FACET, held, opens(2, at=100, replica="x")) == (held, Verdict.LATE)


def test_a_disconnect_from_the_holder_closes_the_session() -> None:
    closed = closes(2, at=200)
    assert given_events(FACET, opens(1, at=100), closed).rests_on == ("disconnected", closed.stamp)


@pytest.mark.parametrize(
    "stray",
    [
        pytest.param(closes(3, 300, replica="x"), id="the-replica-the-endpoint-moved-from"),
        pytest.param(closes(3, 300, replica="y", originator="epr"), id="same-replica-id-of-another-originator"),
        pytest.param(closes(3, 150, replica="x"), id="late-as-well"),
    ],
)
def test_disconnect_from_a_replica_other_than_the_holder_is_fenced(stray: Disconnected) -> None:
    held = given_events(FACET, opens(1, at=100, replica="x"), opens(2, at=200, replica="y"))
    assert when(FACET, held, stray) == (held, Verdict.FENCED)


@pytest.mark.parametrize(("holder", "closer"), [(None, "x"), ("x", None), (None, None)])
def test_disconnect_is_not_fenced_if_a_replica_is_unknown(holder: str | None, closer: str | None) -> None:
    closed = closes(2, at=200, replica=closer)
    assert given_events(FACET, opens(1, at=100, replica=holder), closed).rests_on == ("disconnected", closed.stamp)


def test_a_disconnect_that_does_not_supersede_the_connect_is_late() -> None:
    held = given_events(FACET, opens(1, at=200, replica="x"))
    assert when(FACET, held, closes(2, at=100, replica=None)) == (held, Verdict.LATE)


def test_a_disconnect_that_does_not_supersede_the_last_one_is_late() -> None:
    held = given_events(FACET, opens(1, at=100, replica="x"), closes(2, at=300, replica=None))
    assert when(FACET, held, closes(3, at=200, replica="x")) == (held, Verdict.LATE)


def test_a_disconnect_closes_the_session_although_the_clock_of_its_replica_stepped_back() -> None:
    closed = closes(2, at=50)
    assert given_events(FACET, opens(1, at=100), closed).rests_on == ("disconnected", closed.stamp)


def test_endpoint_that_never_connected_accepts_any_disconnect() -> None:
    closed = closes(1, at=100)
    assert given_events(FACET, closed).rests_on == ("disconnected", closed.stamp)


def test_a_late_disconnect_of_an_endpoint_that_never_connected_changes_nothing() -> None:
    held = given_events(FACET, closes(1, at=200, replica="y"))
    assert when(FACET, held, closes(2, at=100, replica="x")) == (held, Verdict.LATE)


def test_a_reconnect_after_a_disconnect_is_connected_and_keeps_the_time_of_the_disconnect() -> None:
    closed, reopened = closes(2, at=200), opens(3, at=300)
    state = given_events(FACET, opens(1, at=100), closed, reopened)
    assert state == Connectivity(reopened.stamp, closed.stamp)
    assert state.rests_on == ("connected", reopened.stamp)


def test_a_disconnect_of_the_session_before_does_not_end_one_that_opened_before_it_was_noticed() -> None:
    reopened = opens(3, at=440, replica="y")
    state = given_events(FACET, opens(1, at=200, replica="x"), closes(2, at=450, replica="x"), reopened)
    assert state.rests_on == ("connected", reopened.stamp)


def test_disconnect_that_arrives_before_its_connect_ends_the_session() -> None:
    closed = closes(1, at=200, replica=None)
    assert given_events(FACET, closed, opens(2, at=100, replica="x")).rests_on == ("disconnected", closed.stamp)


@pytest.mark.parametrize(
    ("before", "closed"),
    [
        pytest.param(
            [opens(1, at=200, replica="x"), closes(2, at=450, replica="x"), opens(3, at=445, replica="y")],
            closes(4, at=448, replica="y"),
            id="from-another-replica-whose-clock-runs-ahead",
        ),
        pytest.param(
            [closes(1, at=244, replica=None), opens(2, at=296, replica="x")],
            closes(3, at=240, replica="x"),
            id="while-the-clock-of-the-holder-stepped-back",
        ),
    ],
)
def test_disconnect_of_an_earlier_session_does_not_keep_the_endpoint_connected(
    before: list[Event], closed: Disconnected
) -> None:
    known = given_events(FACET, *before)
    assert known.rests_on[0] == "connected"
    state, verdict = when(FACET, known, closed)
    assert (state.rests_on, verdict) == (("disconnected", closed.stamp), Verdict.APPLIED)


def test_disconnect_is_late_after_a_newer_one_of_the_same_session() -> None:
    known = given_events(FACET, opens(1, at=100, replica="x"), closes(2, at=300, replica="x"))
    assert when(FACET, known, closes(3, at=200, replica=None)) == (known, Verdict.LATE)


def test_an_unregistration_ends_the_session_and_makes_its_disconnect_late() -> None:
    ended = stamp(2, at=200, replica="epr-0", originator="epr")
    state, verdict = when(FACET, given_events(FACET, opens(1, at=100)), Unregistered(ended, ("e",)))
    assert (state, verdict) == (Connectivity(unregistered=ended), Verdict.APPLIED)
    assert state.rests_on == ("unknown", None)
    assert when(FACET, state, closes(3, at=190)) == (state, Verdict.LATE)


def test_a_session_that_opened_after_a_late_unregistration_stays_open() -> None:
    opened = opens(1, at=300)
    ended = Unregistered(stamp(2, at=200, replica="epr-0", originator="epr"), ("e",))
    assert given_events(FACET, opened, ended).rests_on == ("connected", opened.stamp)
