"""Subjects, ids and payloads of published changes."""

import json
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.domain.changes import ChangeId, LoggedChange, Place
from projector.stream import change_messages

CHANGE = LoggedChange(
    0, 7, 1_700_000_000_123, "e1", "metadata", "applied", 9, 1_700_000_000_000, 1_700_000_000_001,
    "metadata.updated", "epr", None, b"{}", b'{"metadata":{"k":1.50}}',
)  # fmt: skip


@given(st.text(min_size=1, max_size=50, alphabet=st.characters(codec="utf-8")))
def test_a_token_is_one_token_and_can_be_decoded(endpoint_id: str) -> None:
    token = change_messages.token(endpoint_id)
    assert token
    assert token.isascii()
    assert token.isprintable()
    assert not set(token) & set(" .*>")
    assert unquote(token) == endpoint_id


def test_only_what_a_token_may_not_hold_is_escaped() -> None:
    assert change_messages.token("a/b:c~d_e-F$+&\"'!?@[]{}|\\^`") == "a/b:c~d_e-F$+&\"'!?@[]{}|\\^`"
    assert change_messages.token("1%.* >é\x7f") == "1%25%2E%2A%20%3E%C3%A9%7F"


def test_a_token_that_is_too_long_is_a_digest() -> None:
    tokens = {change_messages.token(endpoint_id) for endpoint_id in ("x" * 2001, "y" * 2001, "é" * 700)}
    assert len(tokens) == 3
    assert all(token.startswith("%sha256-") and len(token) == 72 for token in tokens)
    assert change_messages.token("x" * 2000) == "x" * 2000


def test_ids_of_different_changes_differ() -> None:
    others = [
        CHANGE._replace(shard=1),
        CHANGE._replace(commit_no=8),
        CHANGE._replace(committed_at=1_700_000_000_124),
        CHANGE._replace(endpoint_id="e2"),
        CHANGE._replace(facet="application"),
        CHANGE._replace(position=10),
        CHANGE._replace(position=None),
    ]
    ids = {change_messages.message_id("S", change) for change in (CHANGE, *others)}
    ids.add(change_messages.message_id("T", CHANGE))
    assert len(ids) == len(others) + 2
    assert change_messages.message_id("S", CHANGE._replace()) in ids


def test_a_payload_has_the_columns_and_identifies_its_change() -> None:
    encoded = change_messages.payload(CHANGE, 10_000)
    assert encoded.endswith(b'"before":{},"after":{"metadata":{"k":1.50}}}')  # a number keeps its precision
    assert [*json.loads(encoded)] == [*LoggedChange._fields]
    assert change_messages.identify(encoded) == ChangeId(0, 1_700_000_000_123, Place(7, (9, "e1", "metadata")))
    corrected = change_messages.payload(CHANGE._replace(position=None, stored_at=None), 10_000)
    assert json.loads(corrected)["stored_at"] is None
    assert change_messages.identify(corrected) == ChangeId(0, 1_700_000_000_123, Place(7, (0, "e1", "metadata")))


@pytest.mark.parametrize(("room", "omitted"), [(200, None), (100, ["before"]), (60, ["before", "after"])])
def test_values_that_are_too_large_are_left_out(room: int, omitted: list[str] | None) -> None:
    without = len(change_messages.payload(CHANGE._replace(before=None, after=None), 10_000))
    large = CHANGE._replace(before=b'"%s"' % (b"x" * 120), after=b'"%s"' % (b"y" * 70))
    found = json.loads(change_messages.payload(large, without + room))
    assert found.get("omitted") == omitted
    assert [name for name in ("before", "after") if found[name] is None] == (omitted or [])
    assert json.loads(change_messages.payload(large, 1))["omitted"] == ["before", "after"]


def test_times_beyond_the_calendar_stay_numbers() -> None:
    assert json.loads(change_messages.payload(CHANGE._replace(occurred_at=10**17), 1000))["occurred_at"] == 10**17


@pytest.mark.parametrize("foreign", [b"", b"x", b"{}", b"[]", b'{"shard":0,"commit_no":1,"committed_at":"now"}'])
def test_a_foreign_message_has_no_change(foreign: bytes) -> None:
    assert change_messages.identify(foreign) is None
    naive = b'{"shard":0,"commit_no":1,"committed_at":"2020-01-01T00:00:00","endpoint_id":"e","facet":"f","position":1}'
    assert change_messages.identify(naive) is None
