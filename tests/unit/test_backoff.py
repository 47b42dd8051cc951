"""Pauses grow to a limit, and daemons that fail together do not retry together."""

from itertools import islice

from projector.app.backoff import growing_pauses_s


def test_pauses_double_up_to_the_longest() -> None:
    pauses = growing_pauses_s(first_s=0.1, longest_s=2.0, jitter_s=0)
    assert [round(pause_s, 3) for pause_s in islice(pauses, 7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_jitter_is_added_and_stays_within_the_longest() -> None:
    for _ in range(100):
        first, *_, last = islice(growing_pauses_s(first_s=0.1, longest_s=2.0, jitter_s=0.2), 10)
        assert 0.1 <= first <= 0.3
        assert last == 2.0
    firsts = {next(growing_pauses_s(first_s=0.1, longest_s=2.0, jitter_s=0.2)) for _ in range(20)}
    assert len(firsts) > 1
