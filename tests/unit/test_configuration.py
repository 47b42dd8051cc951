import pytest

from projector.domain.configuration import FACET, Configuration, Failure, Status
from projector.domain.events import ConfigApplied, ConfigAvailable, ConfigFailed, Event, Unregistered
from projector.domain.facets import Verdict
from projector.domain.stamps import Register
from tests.support.strategies import given_events, stamp, when


def announced(position: int, config_id: str, at: int | None = None) -> ConfigAvailable:
    return ConfigAvailable(stamp(position, at or position, "ecr-0", "ecr"), ("e",), config_id)


def confirmed(position: int, config_id: str, at: int | None = None) -> ConfigApplied:
    return ConfigApplied(stamp(position, at or position, "cmx-0", "cmx"), ("e",), config_id)


def failed(position: int, config_id: str, at: int | None = None) -> ConfigFailed:
    return ConfigFailed(stamp(position, at or position, "cmx-0", "cmx"), ("e",), config_id, 500, "flash full")


A_B_A = [announced(1, "a"), confirmed(2, "a"), announced(3, "b"), confirmed(4, "b"), announced(5, "a")]


@pytest.mark.parametrize(
    ("events", "status", "pending"),
    [
        pytest.param([], "none", None, id="nothing"),
        pytest.param([announced(1, "a")], "pending", "a", id="announced"),
        pytest.param([announced(1, "a"), confirmed(2, "a")], "applied", None, id="confirmed"),
        pytest.param(
            [announced(1, "a"), announced(2, "b"), confirmed(3, "a")], "pending", "b", id="confirmed-the-one-before"
        ),
        pytest.param([confirmed(1, "a")], "applied", None, id="confirmed-and-never-announced"),
        pytest.param([confirmed(1, "a"), announced(2, "b")], "pending", "b", id="another-announced"),
        pytest.param([confirmed(1, "a"), announced(2, "a", at=1)], "applied", None, id="confirmed-before-announced"),
        pytest.param(A_B_A, "pending", "a", id="a-b-and-a-announced-again"),
        pytest.param([*A_B_A, confirmed(6, "a")], "applied", None, id="a-b-a"),
        pytest.param([announced(1, "")], "none", None, id="none-assigned"),
        pytest.param([confirmed(1, "")], "none", None, id="confirmed-that-it-has-none"),
        pytest.param([announced(1, "a"), announced(2, "")], "none", None, id="taken-away-before-it-was-applied"),
        pytest.param(
            [announced(1, "a"), confirmed(2, "a"), announced(3, "")], "pending", "", id="taken-away-and-not-confirmed"
        ),
        pytest.param(
            [announced(1, "a"), confirmed(2, "a"), announced(3, ""), confirmed(4, "")],
            "none",
            None,
            id="taken-away-and-confirmed",
        ),
        pytest.param([announced(1, "a"), failed(2, "a")], "failed", None, id="failed"),
        pytest.param([failed(1, "a")], "failed", None, id="failed-and-never-announced"),
        pytest.param([announced(1, ""), failed(2, "")], "failed", None, id="failed-to-take-it-away"),
        pytest.param([announced(1, "a"), failed(2, "a"), announced(3, "a")], "pending", "a", id="announced-again"),
        pytest.param([announced(1, "a"), failed(2, "a"), announced(3, "b")], "pending", "b", id="replaced-by-another"),
        pytest.param([announced(1, "b"), failed(2, "a")], "pending", "b", id="failed-the-one-before"),
        pytest.param([announced(1, "a"), failed(2, "b")], "pending", "a", id="failed-another-than-the-announced"),
        pytest.param([failed(1, "a"), announced(2, "b")], "pending", "b", id="failed-before-another-was-announced"),
        pytest.param([announced(1, "a"), failed(2, "a"), confirmed(3, "a")], "applied", None, id="retried"),
        pytest.param(
            [announced(1, "a"), failed(2, "a"), confirmed(3, "b")], "pending", "a", id="failed-then-confirmed-another"
        ),
        pytest.param([announced(1, "a"), confirmed(2, "a"), failed(3, "a")], "failed", None, id="broke-afterwards"),
        pytest.param([confirmed(1, "a"), failed(2, "b")], "failed", None, id="failed-another-never-announced"),
        pytest.param([failed(1, "a"), confirmed(2, "b")], "applied", None, id="failed-then-applied-never-announced"),
    ],
)
def test_configuration_is_pending_while_announced_but_not_applied(
    events: list[Event], status: Status, pending: str | None
) -> None:
    state = given_events(FACET, *events)
    assert (state.status, state.pending_id) == (status, pending)


def test_a_failure_names_the_announced_configuration_in_another_message() -> None:
    state = given_events(FACET, announced(1, "config 1"), failed(2, f"config {1}"))
    assert state.status == "failed"


@pytest.mark.parametrize(
    ("events", "decided_by"),
    [
        pytest.param([], None, id="none"),
        pytest.param([announced(1, "")], 1, id="none-assigned"),
        pytest.param([confirmed(1, "a"), announced(2, "b")], 2, id="pending"),
        pytest.param([announced(1, "a"), confirmed(2, "a")], 2, id="applied"),
        pytest.param([failed(1, "b"), announced(2, "a"), confirmed(3, "a")], 3, id="applied-after-a-failure"),
        pytest.param([confirmed(1, "a"), announced(2, "b"), failed(3, "b")], 3, id="failed"),
    ],
)
def test_the_status_rests_on_the_event_that_decides_it(events: list[Event], decided_by: int | None) -> None:
    cause = FACET.causes(given_events(FACET, *events))[0]
    assert (cause and cause.stamp.position) == decided_by


def test_available_and_applied_are_independent_registers() -> None:
    available, applied = announced(1, "b", at=200), confirmed(2, "a", at=100)
    state = given_events(FACET, available, applied)
    assert state.available == Register("b", available.stamp)
    assert state.applied == Register("a", applied.stamp)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(ConfigAvailable(stamp(9, 1, "ecr-1", "ecr"), ("e",), "late"), id="announced"),
        pytest.param(ConfigApplied(stamp(9, 1, "cmx-1", "cmx"), ("e",), "late"), id="confirmed"),
        pytest.param(ConfigFailed(stamp(9, 1, "cmx-1", "cmx"), ("e",), "late", 400, None), id="failed"),
    ],
)
def test_a_late_announcement_or_confirmation_or_failure_changes_nothing(event: Event) -> None:
    held = given_events(FACET, announced(2, "a"), confirmed(3, "a"), failed(4, "a"))
    assert when(FACET, held, event) == (held, Verdict.LATE)


def test_failure_keeps_its_code_and_reason_after_a_successful_retry() -> None:
    failure = failed(2, "a")
    state = given_events(FACET, announced(1, "a"), failure, confirmed(3, "a"))
    assert state.failed == Register(Failure("a", 500, "flash full"), failure.stamp)


def test_unregistration_drops_superseded_announcement_confirmation_and_failure() -> None:
    ended = stamp(9, at=3, replica="epr-0", originator="epr")
    newer = announced(4, "b", at=5)
    held = given_events(FACET, announced(1, "a"), confirmed(2, "a"), failed(3, "a"), newer)
    state, verdict = when(FACET, held, Unregistered(ended, ("e",)))
    assert (state, verdict) == (
        Configuration(available=Register("b", newer.stamp), unregistered=ended),
        Verdict.APPLIED,
    )
    assert when(FACET, state, failed(10, "b", at=2)) == (state, Verdict.LATE)
