"""Times as text, in the form in which Postgres writes them in JSON."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.domain.moments import parse_time, time_text

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last time of the calendar."""


@pytest.mark.parametrize(
    ("unix_ms", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (1, "1970-01-01T00:00:00.001+00:00"),
        (10, "1970-01-01T00:00:00.01+00:00"),
        (100, "1970-01-01T00:00:00.1+00:00"),
        (999, "1970-01-01T00:00:00.999+00:00"),
        (1000, "1970-01-01T00:00:01+00:00"),
        (-1, "1969-12-31T23:59:59.999+00:00"),
        (1_700_000_000_120, "2023-11-14T22:13:20.12+00:00"),
        (FIRST_MS, "0001-01-01T00:00:00+00:00"),
        (LAST_MS, "9999-12-31T23:59:59.999+00:00"),
    ],
)
def test_a_time_has_no_more_digits_than_it_needs(unix_ms: int, text: str) -> None:
    assert time_text(unix_ms) == text
    parsed = parse_time(text)
    assert (parsed, type(parsed)) == (unix_ms, int)


def test_a_time_that_is_not_known_has_no_text() -> None:
    assert time_text(None) is None


@pytest.mark.parametrize("unix_ms", [FIRST_MS - 1, LAST_MS + 1, 2**63 - 1, -(2**63), 10**20, 10**30])
def test_a_time_beyond_the_calendar_stays_a_number(unix_ms: int) -> None:
    assert time_text(unix_ms) == unix_ms


@given(st.integers(FIRST_MS, LAST_MS))
def test_the_text_of_a_time_is_parsed_to_the_same_time(unix_ms: int) -> None:
    assert parse_time(time_text(unix_ms)) == unix_ms


@pytest.mark.parametrize(
    "text", [None, 0, 1.5, [], "", "now", "infinity", "2023-11-14T22:13:20", "292277-01-01T00:00:00+00:00"]
)
def test_what_is_not_the_text_of_a_time_in_the_calendar_is_no_time(text: Any) -> None:
    assert parse_time(text) is None
