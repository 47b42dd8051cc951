import pytest

from projector.domain.events import Event, Registered, Unregistered
from projector.domain.facets import Verdict
from projector.domain.registration import FACET, Registration, Status
from tests.support.strategies import given_events, stamp, when


def registers(position: int, at: int, replica: str | None = "x") -> Registered:
    return Registered(stamp(position, at, replica, "epr"), ("e",), "v1")


def unregisters(position: int, at: int, replica: str | None = "x") -> Unregistered:
    return Unregistered(stamp(position, at, replica, "epr"), ("e",))


@pytest.mark.parametrize(
    ("events", "status"),
    [
        pytest.param([], "unknown", id="nothing"),
        pytest.param([registers(1, 100)], "registered", id="registered"),
        pytest.param([unregisters(1, 100)], "unregistered", id="unregistered-and-its-registration-never-heard-of"),
        pytest.param([registers(1, 100), unregisters(2, 200)], "unregistered", id="registered-and-unregistered"),
        pytest.param([registers(1, 100), unregisters(2, 200), registers(3, 300)], "registered", id="registered-again"),
        pytest.param([registers(1, 100), unregisters(2, 90)], "unregistered", id="clock-of-the-replica-stepped-back"),
        pytest.param([registers(1, 200), unregisters(2, 100, "y")], "registered", id="late-unregistration"),
        pytest.param([unregisters(1, 200), registers(2, 100, "y")], "unregistered", id="late-registration"),
    ],
)
def test_an_endpoint_is_registered_while_a_registration_is_held(events: list[Event], status: Status) -> None:
    assert given_events(FACET, *events).status == status


def test_a_late_registration_changes_nothing() -> None:
    held = given_events(FACET, registers(1, at=200))
    assert when(FACET, held, registers(2, at=100, replica="y")) == (held, Verdict.LATE)


def test_a_late_unregistration_changes_nothing() -> None:
    held = given_events(FACET, unregisters(1, at=200))
    assert when(FACET, held, unregisters(2, at=100, replica="y")) == (held, Verdict.LATE)


def test_an_endpoint_that_is_registered_again_keeps_the_time_of_its_unregistration() -> None:
    ended, again = unregisters(2, at=200), registers(3, at=300)
    assert given_events(FACET, registers(1, at=100), ended, again) == Registration(again.stamp, ended.stamp)


def test_an_unregistration_leaves_a_registration_that_is_newer() -> None:
    held, ended = registers(1, at=200), unregisters(2, at=100, replica="y")
    assert given_events(FACET, held, ended) == Registration(held.stamp, ended.stamp)
