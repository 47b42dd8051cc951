import pytest

from projector.domain.configuration import FACET, Status
from projector.domain.events import ConfigApplied, ConfigAvailable, Event
from projector.domain.facets import Verdict
from projector.domain.stamps import Register
from tests.support.strategies import given_events, stamp, when


def announced(position: int, config_id: str, at: int | None = None) -> ConfigAvailable:
    return ConfigAvailable(stamp(position, at or position, "ecr-0", "ecr"), ("e",), config_id)


def confirmed(position: int, config_id: str, at: int | None = None) -> ConfigApplied:
    return ConfigApplied(stamp(position, at or position, "cmx-0", "cmx"), ("e",), config_id)


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
    ],
)
def test_a_configuration_is_pending_while_it_is_announced_and_not_what_is_applied(
    events: list[Event], status: Status, pending: str | None
) -> None:
    state = given_events(FACET, *events)
    assert (state.status, state.pending_id) == (status, pending)


def test_available_and_applied_are_registers_of_their_own() -> None:
    available, applied = announced(1, "b", at=200), confirmed(2, "a", at=100)
    state = given_events(FACET, available, applied)
    assert state.available == Register("b", available.stamp)
    assert state.applied == Register("a", applied.stamp)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(ConfigAvailable(stamp(9, 1, "ecr-1", "ecr"), ("e",), "late"), id="announced"),
        pytest.param(ConfigApplied(stamp(9, 1, "cmx-1", "cmx"), ("e",), "late"), id="confirmed"),
    ],
)
def test_a_late_announcement_or_confirmation_changes_nothing(event: Event) -> None:
    held = given_events(FACET, announced(2, "a"), confirmed(3, "a"))
    assert when(FACET, held, event) == (held, Verdict.LATE)
