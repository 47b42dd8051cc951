"""JSON texts to values and back."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.domain.json_text import parse_json, write_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values, st.booleans())
def test_a_value_is_written_as_the_standard_library_does(value: Any, ascii_only: bool) -> None:
    assert write_json(value, ascii_only=ascii_only) == json.dumps(value, ensure_ascii=ascii_only)


@pytest.mark.parametrize(
    "number", ["0", "-1", "1.10", "0.1234567890123456789012345678901234567890", "1E+400", "9" * 5000, "-0.0", "1" * 18]
)
def test_a_number_keeps_every_digit(number: str) -> None:
    assert write_json(parse_json(f'{{"a": [{number}]}}')) == f'{{"a": [{number}]}}'


def test_a_small_whole_number_is_an_integer() -> None:
    assert [type(parse_json(text)) for text in ("7", "7.0", "7" * 18, "7" * 19)] == [int, Decimal, int, Decimal]


def test_an_answer_is_written_in_ascii_unless_it_is_to_be_read_by_people() -> None:
    assert write_json("é") == r'"\u00e9"'
    assert write_json("é", ascii_only=False) == '"é"'


def test_times_are_texts_and_tuples_are_lists() -> None:
    at = datetime(2026, 11, 26, 1, 2, 3, 4999, UTC)
    assert write_json({"at": at, "all": (1, 1.5)}) == '{"at": "2026-11-26T01:02:03.004+00:00", "all": [1, 1.5]}'


def test_what_has_no_form_in_json_is_an_error() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json({"a": b"x"})
