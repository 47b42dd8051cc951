import pytest

from projector.domain.application import FACET, Application
from projector.domain.events import AppVersionUpdated, Connected, Event, Registered, Unregistered
from projector.domain.facets import Verdict
from projector.domain.stamps import Register, Stamp
from tests.support.strategies import given_events, stamp, when

E = ("e",)
FIRST, SECOND = stamp(1, at=100, replica="x"), stamp(2, at=200, replica="y")
LATE = stamp(3, at=50, replica="z")
HELD = given_events(FACET, Registered(FIRST, E, "v1"), AppVersionUpdated(SECOND, E, "v2", "v1"))


def naming(version: str, at: Stamp) -> list[Event]:
    """Return each of the events that may name an application version."""
    return [Connected(at, E, version), Registered(at, E, version), AppVersionUpdated(at, E, version, "v0")]


@pytest.mark.parametrize("event", naming("v1", FIRST), ids=lambda event: type(event).__name__)
def test_every_event_that_names_a_version_sets_it(event: Event) -> None:
    assert given_events(FACET, event).version == Register("v1", FIRST)


@pytest.mark.parametrize("event", naming("", SECOND), ids=lambda event: type(event).__name__)
def test_empty_version_does_not_replace_the_version(event: Event) -> None:
    assert given_events(FACET, Registered(FIRST, E, "v1"), event).version == Register("v1", FIRST)


@pytest.mark.parametrize("event", naming("v9", LATE), ids=lambda event: type(event).__name__)
def test_a_late_event_changes_no_version_and_no_time(event: Event) -> None:
    assert when(FACET, HELD, event) == (HELD, Verdict.LATE)


def test_repeated_version_takes_the_newer_stamp() -> None:
    assert given_events(FACET, Registered(FIRST, E, "v1"), Connected(SECOND, E, "v1")).version == Register("v1", SECOND)


def test_only_an_update_sets_the_previous_version() -> None:
    assert HELD.previous == Register("v1", SECOND)
    assert given_events(FACET, Registered(FIRST, E, "v1"), Connected(SECOND, E, "v2")).previous is None


def test_empty_previous_version_is_unknown() -> None:
    latest = stamp(3, at=300)
    state, verdict = when(FACET, HELD, AppVersionUpdated(latest, E, "v3", ""))
    assert (state.previous, verdict) == (Register(None, latest), Verdict.APPLIED)


def test_previous_version_is_an_independent_register() -> None:
    late_for_the_version = stamp(2, at=150, replica="z")
    state = given_events(
        FACET, Connected(stamp(1, at=200), E, "v2"), AppVersionUpdated(late_for_the_version, E, "v1", "v0")
    )
    assert state.version == Register("v2", stamp(1, at=200))
    assert state.previous == Register("v0", late_for_the_version)


def test_unregistration_drops_superseded_versions_and_makes_older_events_late() -> None:
    ended = stamp(3, at=150, replica="z")
    state, verdict = when(FACET, HELD, Unregistered(ended, E))
    assert (state, verdict) == (HELD._replace(unregistered=ended), Verdict.APPLIED)
    latest = stamp(4, at=250, replica="z")
    state, _ = when(FACET, state, Unregistered(latest, E))
    assert state == Application(unregistered=latest)
    assert when(FACET, state, Connected(stamp(5, at=240), E, "v1")) == (state, Verdict.LATE)
