import pytest

from projector.app.notifications import Heartbeat
from projector.monitoring import liveness as liveness_module
from projector.monitoring.liveness import Liveness


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(liveness_module, "monotonic", clock)
    return clock


def test_heartbeats_are_missed_after_two_periods_without_one(clock: Clock) -> None:
    liveness = Liveness(10)
    missed = []
    for passed_s in (20, 0.1):
        clock.now += passed_s
        missed.append(liveness.missed)
    liveness.notify(Heartbeat())
    assert [*missed, liveness.missed] == [False, True, False]
    assert liveness.age_s == 0


def test_a_daemon_that_was_stopped_misses_no_heartbeat(clock: Clock) -> None:
    liveness = Liveness(10)
    liveness.stop()
    clock.now += 1000
    assert not liveness.missed
