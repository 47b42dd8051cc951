"""Decoding any bytes returns events, a skip or poison, in little time and memory."""

import time
import tracemalloc
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.domain.messages import Message
from projector.storage.text import escape, unescape
from projector.stream import subjects
from projector.stream.headers import parse_headers, parse_status
from tests.fuzz.mutator import CODECS, TYPES, Mutator, check, varint

LARGE = 256 * 1024
LIMIT_S = 20
"""Of processor time. A decoder that is linear in the length takes about 1 s at most, a quadratic one minutes."""

ANY_TEXT = st.text(st.characters(codec=None) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF))
HEAD = varint(0) + varint(1_700_000_000_000) + varint(-1)
"""Correlation id, timestamp and timeout, with which every record begins."""

any_kind = st.sampled_from([(revision, event_type) for revision, types in TYPES.items() for event_type in types])
any_revision = st.sampled_from(sorted(TYPES))


def message(subject: str, payload: bytes) -> Message:
    return Message(7, 1_700_000_000_500, subject, payload)


@given(any_kind, st.binary(max_size=400))
@settings(max_examples=500)
def test_random_bytes_are_events_or_poison(kind: tuple[str, str], payload: bytes) -> None:
    revision, event_type = kind
    assert check(revision, message(subjects.build("kpc", event_type), payload)) != "skipped"


@given(any_kind, st.binary(max_size=200))
@settings(max_examples=500)
def test_random_bytes_behind_a_sound_head_are_events_or_poison(kind: tuple[str, str], payload: bytes) -> None:
    revision, event_type = kind
    assert check(revision, message(subjects.build("kpc", event_type), HEAD + payload)) != "skipped"


@given(any_revision, st.integers(min_value=0))
@settings(max_examples=2000)
def test_mutated_messages_are_events_skipped_or_poison(revision: str, seed: int) -> None:
    check(revision, Mutator(seed, revision).message())


@given(any_revision, ANY_TEXT, st.binary(max_size=50))
@settings(max_examples=300)
def test_any_subject_is_skipped_or_poison_or_stands_for_events(revision: str, subject: str, payload: bytes) -> None:
    check(revision, message(subject, payload))


@given(st.lists(ANY_TEXT.filter(lambda token: "." not in token), max_size=4), any_kind)
@settings(max_examples=300)
def test_any_originator_and_type_are_handled(tokens: list[str], kind: tuple[str, str]) -> None:
    revision, event_type = kind
    for tail in (tokens, [event_type]):
        check(revision, message(".".join(["kaa.v1.events", *tokens[:1], "endpoint", *tail]), HEAD))


@given(st.binary(max_size=300))
def test_any_headers_are_read_as_far_as_they_are_headers(raw: bytes) -> None:
    for text in (*parse_headers(raw).items(), parse_status(raw)[:2]):
        assert all(isinstance(part, str) for part in text)


@given(st.binary(max_size=300))
def test_any_subject_can_be_kept_in_a_dead_letter_and_read_back(raw: bytes) -> None:
    subject = raw.decode("utf-8", "surrogateescape")
    kept = escape(subject)
    kept.encode()
    assert "\0" not in kept
    assert unescape(kept) == subject


OLD, TODAY = "kaa-2017-04", "kaa-2020-05"

Bomb: TypeAlias = tuple[str, str, bytes]
"""Revision, type and payload."""


def dropped(*blocks: bytes) -> Bomb:
    """A disconnect whose list of endpoint ids is made of these blocks."""
    return OLD, "connectivity.disconnected", HEAD + b"".join(blocks) + varint(0) + varint(1) + b"x"


def keyed(*blocks: bytes) -> Bomb:
    """A change of metadata whose removed keys are made of these blocks."""
    return OLD, "metadata.updated", HEAD + b"\x02e" + b"\0" + b"".join(blocks) + b"\0\0\0\0"


def connected(rest: bytes) -> Bomb:
    return OLD, "connectivity.connected", HEAD + rest


def mapped(*blocks: bytes) -> Bomb:
    """A connect whose map of endpoints is made of these blocks."""
    return TODAY, "connectivity.connected", HEAD + b"".join(blocks) + varint(0) + varint(1) + b"x"


def valued(text: str) -> Bomb:
    """A change of metadata to one value."""
    value = text.encode()
    added = varint(1) + b"\x02k" + varint(1) + varint(len(value)) + value + varint(0)
    return TODAY, "metadata.updated", HEAD + b"\0" + b"\x02e" + varint(0) + added + varint(0) + b"\x02x"


IDS = b"".join(b"\x0c%06d" % number for number in range(LARGE // 8))

BOMBS = {
    "array that claims 2^62 elements": dropped(varint(2**62), varint(1), b"a"),
    "array that claims 2^31 elements and has plenty": dropped(varint(2**31), b"\x02a" * (LARGE // 2)),
    "block of a negative count": dropped(varint(-(2**62)), varint(4), varint(1), b"a"),
    "block of the most negative count": dropped(varint(-(2**63)), varint(0)),
    "block that lies about its size": dropped(varint(-1), varint(2**62), varint(1), b"a"),
    "plenty of blocks of one empty id": dropped(b"\x01\0\0" * (LARGE // 3)),
    "plenty of one-letter ids": dropped(varint(LARGE // 2), b"\x02a" * (LARGE // 2)),
    "plenty of different ids": dropped(varint(LARGE // 8), IDS),
    "plenty of different keys": keyed(varint(LARGE // 8), IDS),
    "string that claims 2^62 bytes": connected(varint(2**62) + b"a"),
    "string of a negative length": connected(varint(-5) + b"a" * LARGE),
    "string of the most negative length": connected(varint(-(2**63)) + b"a"),
    "number of plenty of bytes": (OLD, "connectivity.connected", b"\0" + b"\xff" * LARGE),
    "plenty of nothing": (OLD, "config.updated", b"\0" * LARGE),
    "map that claims 2^62 entries": mapped(varint(2**62), varint(1), b"a", varint(0)),
    "map with a block of the most negative count": mapped(varint(-(2**63)), varint(0)),
    "map of plenty of blocks of one entry": mapped(b"\x01\x02\x02a\0" * (LARGE // 5)),
    "map of plenty of different ids and versions": mapped(
        varint(LARGE // 16), b"".join(b"\x0c%06d\x0c%06d" % (number, number) for number in range(LARGE // 16))
    ),
    "content that claims 2^62 bytes": (TODAY, "config.updated", HEAD + b"\0\x02e\0\0" + varint(2**62) + b"a"),
    "value of plenty of open brackets": valued("[" * LARGE),
    "value of plenty of arrays beside each other": valued("[" + "[]," * (LARGE // 3) + "[]]"),
    "value of plenty of open strings": valued("[" * 600 + '\\"' * (LARGE // 2)),
    "value of an open string behind brackets": valued("[" * 600 + '"' + '\\"' * (LARGE // 2)),
    "value of plenty of escapes": valued('"' + "\\u0041" * (LARGE // 6) + '"'),
    "value of plenty of halves of surrogate pairs": valued('"' + "\\ud83d\\ude00" * (LARGE // 12) + '\\ud83d"'),
    "value of plenty of digits": valued("1" * LARGE),
    "value of an exponent of plenty of digits": valued("1e" + "9" * LARGE),
    "value of an exponent of plenty of zeros": valued("1e" + "0" * LARGE),
    "value of plenty of numbers": valued("[" + "0," * (LARGE // 2) + "0]"),
    "value of plenty of backslashes": valued("\\" * LARGE),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_payload_made_to_exhaust_the_decoder_takes_little_time_and_memory(bomb: str) -> None:
    revision, event_type, payload = BOMBS[bomb]
    subject = subjects.build("kpc", event_type)
    began = time.process_time()
    check(revision, message(subject, payload))
    assert time.process_time() - began < LIMIT_S
    tracemalloc.start()
    try:
        check(revision, message(subject, payload))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * len(payload) + LARGE


def test_invented_subjects_do_not_fill_the_memory() -> None:
    for number in range(20_000):
        check(OLD, message(f"kaa.v1.events.made-up-{number}.endpoint.connectivity.connected", b""))
    assert CODECS[OLD]._route.cache_info().currsize <= 10_000
