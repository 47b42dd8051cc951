"""A large corpus of messages for each revision of the protocol, the same on every version of Python.

It has its own Avro encoder, independent of the code under test.
It uses only `Random.random`, whose sequence for a seed is the same in every version of Python.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias, TypeVar

from projector.domain.messages import Message

T = TypeVar("T")

MESSAGES = 20_000
_SEED = 20_170_401
_BEGIN_MS = 1_600_000_000_000
_ENDPOINTS = 300
_LONGEST_ID = "ü" * 1346  # 2,692 bytes, the limit of an index

_ODD_IDS = (" ", "O'\"\\\n", "\u2603", "\U0001f680", "ep-000 ", "EP-000", "e\u0301", "\u00e9", _LONGEST_ID)
_BAD_IDS = ("", "nul\0", "\0", _LONGEST_ID + "x", "x" * 4000)
_VERSIONS = ("v1", "v2", "v3", "v3", "\U0001f680", "")
_CONFIGS = ("c0", "c1", "c2", "c3", "c0", "c1", "ü")
_KEYS = ("a", "b", "c", "d", "e", "f", "", "\u2603", "A")
_VALUES = (
    None,
    "null",
    "1",
    "1.50",
    "-0",
    "123456789012345678901234567890.10",
    "1e5",
    '"Kyiv"',
    '""',
    "",
    "Kyiv",
    "01",
    "NaN",
    "true",
    ' {"b": [1, 2.0], "a": null} ',
    '{"a": 1, "a": 2}',
    '"\\ud83d\\ude00"',
    "\u2603",
)
_BAD_VALUES = ("x\0", '"\\u0000"', '["\\ud800"]', "1e131072", "[" * 600 + "]" * 600)
_STATUS_CODES = (200, 200, 200, 204, 299, 300, 404, 500, 0, -1)
_REASONS = (None, None, "", "flash full", "\u2603")
_UNKNOWN_TYPES = (
    "config.removed",
    "connectivity",
    "connectivity.connected.again",
    "alarm.raised",
    "lifecycle.REGISTERED",
    "caf\u00e9.\u0007",
    "",
)
_FOREIGN_SUBJECTS = ("kaa.v1.events.kpc.service.started", "kaa.v2.events.kpc.endpoint.config.updated", "x", "")
_BAD_ORIGINATORS = ("nul\0", "\udcff")


class Draw:
    """Random choices determined by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random  # noqa: S311 - no secret
        self.latest_endpoint_id = "ep-000"

    def below(self, end: int) -> int:
        return int(self._random() * end)

    def chance(self, percent: float) -> bool:
        return self._random() * 100 < percent

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def some(self, options: Sequence[T], most: int) -> list[T]:
        """Return up to `most` options, some of them twice."""
        return [self.pick(options) for _ in range(self.below(most + 1))]


def long(value: int) -> bytes:
    rest = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def text(value: str) -> bytes:
    encoded = value.encode()
    return long(len(encoded)) + encoded


def optional(value: str | None) -> bytes:
    """Encode a union of null and string."""
    return long(0) if value is None else long(1) + text(value)


def array(items: Sequence[bytes], draw: Draw) -> bytes:
    """Encode an array in one of the forms that Avro allows."""
    if not items:
        return long(0)
    cut = draw.below(len(items) + 1) if draw.chance(20) else 0
    encoded = b""
    for block in filter(None, (items[:cut], items[cut:])):
        content = b"".join(block)
        sized = draw.chance(20)
        encoded += (long(-len(block)) + long(len(content)) if sized else long(len(block))) + content
    return encoded + long(0)


@dataclass
class Replica:
    """A replica of a service, and how far its clock is off."""

    originator: str
    replica: str | None
    off_ms: int = 0


Payload: TypeAlias = Callable[[Draw, Replica], bytes]
"""The fields of an event after `timeout`."""


def endpoint_id(draw: Draw) -> str:
    if draw.chance(0.3):
        return draw.pick(_BAD_IDS)
    if draw.chance(5):
        return draw.pick(_ODD_IDS)
    if not draw.chance(20):
        # Some endpoints are named far more often than others.
        draw.latest_endpoint_id = f"ep-{draw.below(draw.below(_ENDPOINTS) + 1):03}"
    return draw.latest_endpoint_id


def version(draw: Draw) -> str:
    return "v\0" if draw.chance(0.2) else draw.pick(_VERSIONS)


def config_id(draw: Draw) -> str:
    return draw.pick(("", "c\0")) if draw.chance(1) else draw.pick(_CONFIGS)  # empty: no configuration


def keys(draw: Draw) -> bytes:
    named = draw.some(_KEYS, 3)
    if draw.chance(0.2):
        named.append("k\0")
    return array([text(key) for key in named], draw)


def _replica_or_empty(replica: Replica) -> bytes:
    return text(replica.replica or "")


def _connected_2017(draw: Draw, replica: Replica) -> bytes:
    return text(endpoint_id(draw)) + text(version(draw)) + _replica_or_empty(replica)


def _disconnected_2017(draw: Draw, replica: Replica) -> bytes:
    count = draw.pick((0, 1, 1, 1, 2, 3, 8))
    endpoint_ids = [endpoint_id(draw) for _ in range(count)]
    if draw.chance(20):
        endpoint_ids += endpoint_ids[:2]
    return array([text(one) for one in endpoint_ids], draw) + _replica_or_empty(replica)


def _registered_2017(draw: Draw, replica: Replica) -> bytes:
    return text(endpoint_id(draw)) + text(version(draw)) + optional(replica.replica)


def _app_version_updated_2017(draw: Draw, replica: Replica) -> bytes:
    return text(endpoint_id(draw)) + text(version(draw)) + text(version(draw)) + optional(replica.replica)


def _metadata_updated_2017(draw: Draw, replica: Replica) -> bytes:
    named = text(endpoint_id(draw)) + text(version(draw))
    return named + keys(draw) + keys(draw) + keys(draw) + optional(replica.replica)


def _config_2017(draw: Draw, replica: Replica) -> bytes:
    return text(endpoint_id(draw)) + text(version(draw)) + text(config_id(draw)) + optional(replica.replica)


def mapping(items: Mapping[str, bytes], draw: Draw) -> bytes:
    """Encode a map."""
    return array([text(key) + value for key, value in items.items()], draw)


def endpoints(draw: Draw) -> bytes:
    """Encode a map of endpoint ids to versions."""
    count = draw.pick((0, 1, 1, 1, 1, 2, 3, 8))
    return mapping({endpoint_id(draw): text(version(draw)) for _ in range(count)}, draw)


def json_value(draw: Draw) -> bytes:
    """Encode a metadata value: null, or a text that may be JSON."""
    return optional(draw.pick(_BAD_VALUES) if draw.chance(0.5) else draw.pick(_VALUES))


def some_keys(draw: Draw, value: Callable[[Draw], bytes]) -> bytes:
    """Encode a map of metadata keys."""
    named = {key: value(draw) for key in draw.some(_KEYS, 2)}
    return mapping(named | ({"k\0": value(draw)} if draw.chance(0.2) else {}), draw)


def _several_2020(draw: Draw, replica: Replica) -> bytes:
    return endpoints(draw) + _replica_or_empty(replica)


def _one_2020(draw: Draw) -> bytes:
    return text(version(draw)) + text(endpoint_id(draw))


def _lifecycle_2020(draw: Draw, replica: Replica) -> bytes:
    return _one_2020(draw) + _replica_or_empty(replica)


def _app_version_updated_2020(draw: Draw, replica: Replica) -> bytes:
    return text(version(draw)) + _lifecycle_2020(draw, replica)


def _metadata_updated_2020(draw: Draw, replica: Replica) -> bytes:
    changes = some_keys(draw, json_value) + some_keys(draw, json_value)
    changes += some_keys(draw, lambda draw: json_value(draw) + json_value(draw))
    return _one_2020(draw) + changes + _replica_or_empty(replica)


def _config_updated_2020(draw: Draw, replica: Replica) -> bytes:
    named = _one_2020(draw) + text(config_id(draw)) + text("application/json")
    return named + text("{}") + optional(replica.replica)


def _config_applied_2020(draw: Draw, replica: Replica) -> bytes:
    named = _one_2020(draw) + text(config_id(draw)) + optional(replica.replica)
    return named + long(draw.pick(_STATUS_CODES)) + optional(draw.pick(_REASONS))


CORPORA: Mapping[str, Sequence[tuple[str, Payload]]] = {
    "kaa-2017-04": (
        *(("connectivity.connected", _connected_2017),) * 5,
        *(("connectivity.disconnected", _disconnected_2017),) * 4,
        ("lifecycle.registered", _registered_2017),
        *(("lifecycle.appversion-updated", _app_version_updated_2017),) * 2,
        *(("metadata.updated", _metadata_updated_2017),) * 3,
        *(("config.new-available", _config_2017),) * 2,
        *(("config.updated", _config_2017),) * 2,
    ),
    "kaa-2020-05": (
        *(("connectivity.connected", _several_2020),) * 5,
        *(("connectivity.disconnected", _several_2020),) * 4,
        *(("lifecycle.registered", _lifecycle_2020),) * 2,
        ("lifecycle.unregistered", _lifecycle_2020),
        *(("lifecycle.appversion-updated", _app_version_updated_2020),) * 2,
        *(("metadata.updated", _metadata_updated_2020),) * 4,
        *(("config.updated", _config_updated_2020),) * 3,
        *(("config.applied", _config_applied_2020),) * 3,
    ),
}
"""The event types of each revision with their payloads, as often as they occur."""


def corpus(revision: str) -> Iterator[Message]:
    """Yield the messages of a revision in stream order."""
    draw = Draw(_SEED)
    replicas = [Replica(name, replica) for name in ("kpc", "epr", "ümläut") for replica in ("r0", "r1", "", None)]
    position, now = 0, _BEGIN_MS
    for _ in range(MESSAGES):
        position += 2 if draw.chance(5) else 1
        now += 0 if draw.chance(10) else draw.below(3000)
        replica = draw.pick(replicas)
        if draw.chance(2):
            replica.off_ms = draw.below(60_000) - 45_000
        event_type, payload = draw.pick(CORPORA[revision])
        content = _envelope(draw, _timestamp(draw, now, replica)) + payload(draw, replica)
        if draw.chance(2):
            content = _damaged(draw, content)
        yield Message(position, now, _subject(draw, replica.originator, event_type), content)


def _timestamp(draw: Draw, now: int, replica: Replica) -> int:
    if draw.chance(2):
        return draw.pick((0, -1, -now, 2**62))
    if draw.chance(10):
        return now + draw.below(20) - 10
    clock = now + replica.off_ms - draw.below(2000)
    return clock // 5000 * 5000 if draw.chance(50) else clock  # events of different replicas at the same time


def _envelope(draw: Draw, timestamp: int) -> bytes:
    return text(draw.pick(("", "trace"))) + long(timestamp) + long(draw.pick((-1, -1, 0, 1, 60_000)))


def _damaged(draw: Draw, content: bytes) -> bytes:
    cut = draw.below(len(content))
    return draw.pick(
        (
            b"",
            content[:cut],
            content + b"\0",
            content + content,
            content[:cut] + b"\xff\xff\xff" + content[cut + 3 :],
            bytes(draw.below(256) for _ in range(draw.below(60))),
        )
    )


def _subject(draw: Draw, originator: str, event_type: str) -> str:
    if draw.chance(2):
        event_type = draw.pick(_UNKNOWN_TYPES)
    if draw.chance(0.3):
        originator = draw.pick(_BAD_ORIGINATORS)
    return draw.pick(_FOREIGN_SUBJECTS) if draw.chance(0.5) else f"kaa.v1.events.{originator}.endpoint.{event_type}"
