from dataclasses import replace

import pytest

from projector.app import batch_size
from projector.app.batch_size import BatchSize
from projector.app.projection import Outcome

FAR = 1_000_000

CHEAP = Outcome(
    messages=10,
    verdicts={},
    skipped={},
    dead_letters=(),
    duplicates=0,
    seconds={"commit": 0.01},
    named=12,
    endpoints=10,
)
"""It names endpoints repeatedly."""
REFOLDED = replace(CHEAP, refolded=True)


@pytest.fixture(autouse=True)
def few_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "_MOST_REGISTERS", 300)


def commit_of(messages: int, *, seconds: float = 0.01, registers: int = 0) -> Outcome:
    return replace(CHEAP, messages=messages, seconds={"commit": seconds}, registers=registers)


def adapted(*outcomes: Outcome, lag: int = FAR) -> int:
    """The limit after batches with these outcomes."""
    size = BatchSize(least=10, most=100)
    for outcome in outcomes:
        size.adapt(outcome)
    return size.limit(lag)


def test_a_session_begins_with_single_deliveries() -> None:
    assert adapted() == 0


def test_cheap_commits_double_a_batch_up_to_the_largest() -> None:
    assert [adapted(*[CHEAP] * commits) for commits in range(1, 6)] == [20, 40, 80, 100, 100]


def test_a_batch_is_a_small_part_of_the_lag() -> None:
    assert [adapted(*[CHEAP] * 9, lag=lag) for lag in (FAR, 800, 799, 88, 87, 0)] == [100, 100, 99, 11, 0, 0]


@pytest.mark.parametrize(("seconds", "limit"), [(2.05, 97), (4, 50), (8, 25), (20, 0), (200, 0)])
def test_a_slow_commit_shortens_the_next(seconds: float, limit: int) -> None:
    assert adapted(*[CHEAP] * 9, commit_of(100, seconds=seconds)) == limit


@pytest.mark.parametrize(("registers", "limit"), [(300, 100), (600, 50), (1200, 25), (5000, 0)])
def test_endpoints_with_many_registers_make_a_batch_smaller(registers: int, limit: int) -> None:
    assert adapted(*[CHEAP] * 9, commit_of(100, registers=registers)) == limit


def test_a_batch_does_not_grow_beyond_what_it_is_expected_to_cost() -> None:
    assert adapted(commit_of(10, seconds=1.25)) == 16
    assert adapted(commit_of(10, registers=200)) == 15


def test_a_size_recovers_step_by_step() -> None:
    slow = commit_of(100, seconds=8)
    assert [adapted(*[CHEAP] * 9, slow, *[CHEAP] * commits) for commits in range(4)] == [25, 50, 100, 100]


def test_a_batch_that_was_folded_again_is_followed_by_single_deliveries() -> None:
    assert [adapted(*[CHEAP] * 9, REFOLDED, *[CHEAP] * commits) for commits in range(3)] == [0, 20, 40]


@pytest.mark.parametrize("named", [0, 10, 11])
def test_batches_that_hardly_repeat_an_endpoint_stay_small(named: int) -> None:
    once = replace(CHEAP, named=named)
    assert adapted(*[once] * 9) == 0
    assert [adapted(*[CHEAP] * 9, *[once] * batches) for batches in range(5)] == [100, 50, 25, 12, 0]


def test_a_batch_without_messages_says_nothing() -> None:
    gap = replace(CHEAP, messages=0, seconds={"commit": 9.0})
    assert adapted(CHEAP, gap) == 20


def test_a_largest_batch_below_a_delivery_joins_nothing() -> None:
    size = BatchSize(least=10, most=5)
    size.adapt(CHEAP)
    assert size.limit(FAR) == 0
