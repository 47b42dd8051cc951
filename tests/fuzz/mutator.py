"""Messages that are almost right: seeded mutations of real ones, and what may come of decoding them."""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, get_args

from projector.domain.events import Event, MetadataUpdated
from projector.domain.messages import Message, Skipped
from projector.errors import PoisonError, PoisonReason
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.limits import MAX_ENDPOINT_ID_BYTES
from projector.stream.protocol import REVISIONS

CODECS = {revision: Codec(revision, Path(__file__).parents[2] / "schemas") for revision in REVISIONS}
TYPES = {revision: tuple(codec.revision.event_types) for revision, codec in CODECS.items()}

_STORED_AT = 1_700_000_000_500
_DETAIL_CHARACTERS = 2000
_REASONS = frozenset(get_args(PoisonReason))

_TEXTS = ("", "e", "endpoint-1", "ключ", "\U0001f680" * 3, "a\0b", "'\"\\\n", "x" * 300)
_VALUES = (
    None,
    "",
    "null",
    "1.50",
    "-1e131071",
    "1e131072",
    "1" * 5000,
    "NaN",
    '"Kyiv"',
    '"\\u0000"',
    '"\\ud83d\\ude00"',
    '["\\ud800"]',
    '{"a": [1, {"b": null}]}',
    "[" * 600,
    "[" * 513 + "]" * 513,
    "a\0b",
    "ключ",
)
_NUMBERS = (0, 1, -1, 2, 63, 64, -64, 127, 8191, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
_TOKENS = (
    "kaa",
    "v1",
    "events",
    "kpc",
    "endpoint",
    "connectivity",
    "connected",
    "",
    "*",
    ">",
    "ü",
    "\udcff",
    "a\0",
    "x" * 99,
)


def varint(number: int) -> bytes:
    """Return a number as Avro writes it."""
    zigzag = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while zigzag & ~0x7F:
        encoded.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    encoded.append(zigzag)
    return bytes(encoded)


def _overlong(random: Random) -> bytes:
    """Return a number that takes more bytes than any number may."""
    return random.choice((b"\x80", b"\xff")) * random.randrange(10, 200) + bytes([random.randrange(128)])


class Mutator:
    """Endless messages that follow from a seed."""

    def __init__(self, seed: int, revision: str) -> None:
        self._codec = CODECS[revision]
        self._types = TYPES[revision]
        self._random = Random(seed)  # noqa: S311 - mutations that can be repeated are the point
        self._position = 0

    def message(self) -> Message:
        """Return the next message; about one in fifteen is flawless."""
        random = self._random
        self._position += 1
        event_type = random.choice(self._types)
        subject = subjects.build(random.choice(("kpc", "epr")), event_type)
        payload = random.randbytes(random.randrange(64)) if random.random() < 0.1 else self._payload(event_type)
        for _ in range(random.choice((0, 1, 1, 1, 2, 4, 16))):
            payload = random.choice(_MUTATIONS)(random, payload)
        if random.random() < 0.1:
            subject = self._subject(subject)
        return Message(self._position, _STORED_AT, subject, payload)

    def _payload(self, event_type: str) -> bytes:
        random = self._random

        def texts() -> list[str]:
            return [random.choice(_TEXTS) for _ in range(random.choice((0, 1, 3)))]

        record: dict[str, Any] = {
            "correlationId": random.choice(_TEXTS),
            "timestamp": random.choice((_STORED_AT, *_NUMBERS)),
            "timeout": random.choice(_NUMBERS),
            "endpointId": random.choice(_TEXTS),
            "endpointIds": texts(),
            "appVersionName": random.choice(_TEXTS),
            "previousAppVersionName": random.choice(_TEXTS),
            "configId": random.choice(_TEXTS),
            "endpoints": {text: random.choice(_TEXTS) for text in texts()},
            "content": random.randbytes(8),
            "statusCode": random.choice((200, 299, 404, -1, 2**31 - 1, -(2**31))),
            "reasonPhrase": random.choice((None, *_TEXTS)),
            "originatorReplicaId": random.choice(_TEXTS),
        }
        if self._codec.revision.name == "kaa-2017-04":
            record |= {"removed": texts(), "added": texts(), "updated": texts()}
        else:
            record |= {change: {key: random.choice(_VALUES) for key in texts()} for change in ("removed", "added")}
            record["updated"] = {
                key: {"newValue": random.choice(_VALUES), "oldValue": random.choice(_VALUES)} for key in texts()
            }
        return self._codec.encode(event_type, record)

    def _subject(self, subject: str) -> str:
        random = self._random
        tokens = subject.split(".")
        for _ in range(random.randrange(1, 3)):
            place = random.randrange(len(tokens) + 1)
            tokens[place : place + random.randrange(2)] = [random.choice(_TOKENS)] * random.randrange(3)
        return ".".join(tokens)


def check(revision: str, message: Message) -> str:
    """Decode a message and return what came of it: a reason, `skipped` or `events`.

    Raises:
        AssertionError: it is something that could not be stored.
        Exception: decoding let through what it should not.
    """
    codec = CODECS[revision]
    codec.explain(message.subject, message.payload)
    try:
        decoded: Sequence[Event] | Skipped | PoisonError = codec.decode(message)
    except PoisonError as error:
        decoded = error
    if isinstance(decoded, PoisonError):
        assert decoded.reason in _REASONS, decoded.reason
        assert len(decoded.detail) <= _DETAIL_CHARACTERS, f"a detail of {len(decoded.detail)} characters"
        return decoded.reason
    if isinstance(decoded, Skipped):
        assert decoded.type.isprintable(), decoded.type
        assert decoded.type, "a type without a name"
        return "skipped"
    for event in decoded:
        assert event.stamp.position == message.position
        assert 0 < event.stamp.occurred_at <= message.stored_at
        assert event.endpoint_ids, "an event about no endpoint"
        for endpoint_id in event.endpoint_ids:
            assert 0 < len(endpoint_id.encode()) <= MAX_ENDPOINT_ID_BYTES
        for text in _texts(event):
            assert "\0" not in text.encode().decode()
    return "events"


def _texts(value: Any) -> list[str]:
    """Return every text that a row would hold, including those within metadata values."""
    if isinstance(value, MetadataUpdated):
        value = (*value, *(json.loads(text, parse_int=Decimal) for text in value.present.values() if text is not None))
    if isinstance(value, str):
        return [value]
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [text for part in parts for text in _texts(part)]


def _flip(random: Random, payload: bytes) -> bytes:
    place = random.randrange(len(payload) or 1)
    return (
        payload[:place]
        + bytes(byte ^ 1 << random.randrange(8) for byte in payload[place : place + 1])
        + payload[place + 1 :]
    )


def _truncate(random: Random, payload: bytes) -> bytes:
    return payload[: random.randrange(len(payload) + 1)]


def _insert(what: Callable[[Random], bytes]) -> Callable[[Random, bytes], bytes]:
    def mutate(random: Random, payload: bytes) -> bytes:
        place = random.randrange(len(payload) + 1)
        return payload[:place] + what(random) + payload[place + random.randrange(2) :]

    return mutate


def _repeat(random: Random, payload: bytes) -> bytes:
    start, end = sorted((random.randrange(len(payload) + 1), random.randrange(len(payload) + 1)))
    return payload[:end] + payload[start:]


def _remove(random: Random, payload: bytes) -> bytes:
    start, end = sorted((random.randrange(len(payload) + 1), random.randrange(len(payload) + 1)))
    return payload[:start] + payload[end:]


_MUTATIONS = (
    _flip,
    _flip,
    _flip,
    _truncate,
    _repeat,
    _remove,
    _insert(lambda random: random.randbytes(random.randrange(1, 8))),
    _insert(lambda random: varint(random.choice(_NUMBERS))),
    _insert(_overlong),
)
