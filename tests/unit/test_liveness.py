import pytest

from projector.app.notifications import Active, Heartbeat, Retrying
from projector.domain.checkpoint import Checkpoint
from projector.domain.rules import Rules
from projector.domain.shards import Shard
from projector.errors import DatabaseUnavailableError
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


def test_a_daemon_that_could_not_connect_at_its_start_is_active_once_it_leads_any_shard() -> None:
    liveness = Liveness(10)
    rules = Rules(version=1, revision="r", originators=())
    liveness.notify(Retrying(error=DatabaseUnavailableError("down")))
    liveness.notify(
        Active(checkpoint=Checkpoint(stream="S", stream_created_at=0, rules=rules, shard=Shard(number=1, of=3)))
    )
    assert liveness.doing.state == "active"
