"""A glance finds the endpoint id of a payload by the fields before it alone."""

import json
from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from projector.stream.glance import endpoint_id, preceding

TEXT = {"name": "correlationId", "type": "string"}
LONG = {"name": "timestamp", "type": "long"}
INT = {"name": "timeout", "type": "int"}
ID = json.loads('{"name": "endpointId", "type": "string"}')  # as it is read from a schema
OPTIONAL = {"name": "replica", "type": ["null", "string"]}
LIST = {"name": "removed", "type": {"type": "array", "items": "string"}}
FLOAT = {"name": "ratio", "type": "float"}

LONGEST = 8191
"""Bytes of the longest text whose length takes two bytes."""


def encoded(value: str | int, type_: str) -> bytes:
    written = BytesIO()
    schemaless_writer(written, {"type": type_}, value)
    return written.getvalue()


@pytest.mark.parametrize(
    ("fields", "before"),
    [
        ([ID], ()),
        ([TEXT, ID], (True,)),
        ([TEXT, LONG, INT, ID, OPTIONAL], (True, False, False)),
        ([INT, TEXT, ID], (False, True)),
        ([ID, LIST, FLOAT], ()),
    ],
)
def test_strings_and_integers_may_precede_the_endpoint_id(fields: list[Any], before: tuple[bool, ...]) -> None:
    assert preceding(fields) == before


@pytest.mark.parametrize("fields", [[OPTIONAL, ID], [TEXT, LIST, ID], [FLOAT, ID]])
def test_a_schema_with_any_other_field_before_the_endpoint_id_allows_no_glance(fields: list[Any]) -> None:
    assert preceding(fields) is None


@pytest.mark.parametrize("fields", [[], [TEXT, LONG]])
def test_a_schema_without_an_endpoint_id_allows_no_glance(fields: list[Any]) -> None:
    assert preceding(fields) is None


@pytest.mark.parametrize("length", [0, 1, 63, 64, 127, 128, 129, 1000, 4096, LONGEST])
def test_an_endpoint_id_of_any_length_that_takes_two_bytes_is_found(length: int) -> None:
    found = ("e1" * length)[:length]
    assert endpoint_id(encoded(found, "string") + b"more", ()) == found.encode()


@pytest.mark.parametrize("length", [LONGEST + 1, 2 * LONGEST, 16384, 100_000])
def test_a_longer_text_is_left_to_the_decoder(length: int) -> None:
    assert endpoint_id(encoded("e" * length, "string"), ()) is None
    assert endpoint_id(encoded("e" * length, "string") + encoded("e1", "string"), (True,)) is None


@pytest.mark.parametrize("length", [-1, -2, -64, -65, -8192])
def test_a_negative_length_is_left_to_the_decoder(length: int) -> None:
    assert endpoint_id(encoded(length, "long") + b"e" * 9000, ()) is None


@pytest.mark.parametrize("integer", [0, -1, 63, 64, -65, 8191, 8192, -8193, 1_700_000_000_000, 2**63 - 1, -(2**63)])
def test_an_integer_of_any_length_is_passed_over(integer: int) -> None:
    payload = encoded(integer, "long") + encoded("e1", "string")
    assert endpoint_id(payload, (False,)) == b"e1"


@pytest.mark.parametrize("length", [0, 1, 63, 64, 128, LONGEST])
def test_a_text_of_any_length_that_takes_two_bytes_is_passed_over(length: int) -> None:
    payload = encoded("x" * length, "string") + encoded("e1", "string")
    assert endpoint_id(payload, (True,)) == b"e1"


@given(st.lists(st.text(max_size=70) | st.integers(-(2**63), 2**63 - 1), max_size=4), st.text(max_size=70))
def test_no_part_of_a_payload_that_is_cut_off_is_taken_for_an_endpoint_id(
    fields: list[str | int], endpoint: str
) -> None:
    before = tuple(isinstance(field, str) for field in fields)
    payload = b"".join(encoded(field, "string" if isinstance(field, str) else "long") for field in fields)
    payload += encoded(endpoint, "string")
    assert endpoint_id(payload, before) == endpoint.encode()
    assert all(endpoint_id(payload[:end], before) is None for end in range(len(payload)))


def test_a_length_that_is_cut_off_is_left_to_the_decoder() -> None:
    assert endpoint_id(b"\x80", ()) is None
    assert endpoint_id(b"\x80", (False,)) is None
