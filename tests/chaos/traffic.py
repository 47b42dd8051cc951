"""What is published during a chaos run: a fleet's life, and between its events everything that makes folding hard."""

from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

from projector.dev.fleet import Fleet
from projector.stream import subjects
from projector.stream.codec import Codec

Wire: TypeAlias = tuple[str, bytes]
"""Subject and payload."""

REFUSED = "refused"
"""An endpoint that the database of a trial objects to."""

_FLEET = 30
_STRANGERS = ("stranger", "Fremder ☂", "O'\"\\\n", "\U0001f680")
_ORIGINATORS = ("kpc", "epr")
_REPLICAS = ("kpc-0", "kpc-1", "")
_NAMES = ("v1", "v2", "v3", "")
_KEYS = ("site", "fw", "owner")
_CONFIGS = ("c1", "c2", "")
_AN_HOUR_MS = 3_600_000
_JITTER_MS = 3_000
_LEAD_MS = 60_000
"""How long before a run its first event occurred: an event cannot be later than it was stored."""

_KINDS = {
    "kaa-2017-04": (
        ("connectivity.connected", 30),
        ("connectivity.disconnected", 25),
        ("lifecycle.registered", 5),
        ("lifecycle.appversion-updated", 10),
        ("metadata.updated", 20),
        ("config.new-available", 10),
        ("config.updated", 10),
    ),
    "kaa-2020-05": (
        ("connectivity.connected", 30),
        ("connectivity.disconnected", 25),
        ("lifecycle.registered", 8),
        ("lifecycle.unregistered", 4),
        ("lifecycle.appversion-updated", 10),
        ("metadata.updated", 20),
        ("config.updated", 12),
        ("config.applied", 15),
    ),
}
_UNKNOWN = (
    "config.removed",
    "lifecycle.forgotten",
    "connectivity.connected.again",
    "connectivity",
    "alarm.raised",
    "data-collection.data-points-received.temperature",
)
_VALUES = (
    None,
    "null",
    "1",
    "1.50",
    "12345678901234567890.10",
    '"Kyiv"',
    "Kyiv",
    '{"b": [1, null], "a": "\\u00e9"}',
    "",
)
_BAD_VALUES = ("a\0b", '"\\u0000"', '["\\ud800"]', "1e131072", "[" * 600 + "]" * 600)
_STATUS_CODES = (200, 204, 299, 300, 404, 500)
_REASONS = (None, "", "flash full")

Record: TypeAlias = dict[str, Any]


class Traffic:
    """Endless messages that follow from a seed and the time of the first one; sound ones can all be folded."""

    def __init__(self, random: Random, codec: Codec, *, now_ms: int, sound: bool = False) -> None:
        self._sources = _SOUND if sound else _SOURCES
        self._random = random
        self._codec = codec
        self._begin = now_ms - _LEAD_MS
        self._count = 0
        revision = codec.revision.name
        self._kinds = _KINDS[revision]
        fleet = Fleet(
            endpoints=_FLEET, seed=random.getrandbits(32), start_at=self._begin, interval_ms=5, revision=revision
        )
        self._fleet = fleet.events()
        self._known = list(_STRANGERS)

    def take(self, count: int) -> list[Wire]:
        """Return the next messages."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Wire:
        self._count += 1
        ((make, _),) = self._random.choices(self._sources, [weight for _, weight in self._sources])
        return make(self)

    def _ordinary(self) -> Wire:
        event = next(self._fleet)
        endpoint_id = event.record.get("endpointId")
        if endpoint_id is not None and endpoint_id not in self._known:
            self._known.append(endpoint_id)
        return self._wire(event.originator, event.event_type, event.record)

    def _hostile(self) -> Wire:
        """Return an event that may be late, fenced, of an unknown replica, or from a clock that stepped back."""
        return self._wire(self._random.choice(_ORIGINATORS), *self._record())

    def _malformed(self) -> Wire:
        event_type, record = self._record()
        spoil = self._random.choice((*_SPOILERS, None))
        if spoil is not None:
            record |= spoil(record)
        subject, payload = self._wire("kpc", event_type, record)
        if spoil is None:
            payload = self._random.choice((payload + b"\0", payload[: self._random.randrange(len(payload))]))
        return subject, payload

    def _refused(self) -> Wire:
        """Return an event that only the database objects to."""
        event_type, record = self._record()
        return self._wire("kpc", event_type, record | _named(record, REFUSED))

    def _unknown(self) -> Wire:
        return subjects.build("kpc", self._random.choice(_UNKNOWN)), self._random.randbytes(20)

    def _wire(self, originator: str, event_type: str, record: Record) -> Wire:
        return subjects.build(originator, event_type), self._codec.encode(event_type, record)

    def _record(self) -> tuple[str, Record]:
        random = self._random
        (event_type,) = random.choices(*zip(*self._kinds, strict=True))
        record: Record = {
            "correlationId": "",
            "timestamp": self._timestamp(),
            "originatorReplicaId": random.choice(_REPLICAS),
            "endpointId": random.choice(self._known),
            "endpointIds": random.choices(self._known, k=random.choice((0, 1, 1, 2, 5, 40))),
            "appVersionName": random.choice(_NAMES),
            "previousAppVersionName": random.choice(_NAMES),
            "configId": random.choice(_CONFIGS),
            "content": b"{}",
            "statusCode": random.choice(_STATUS_CODES),
            "reasonPhrase": random.choice(_REASONS),
        }
        record["endpoints"] = {endpoint_id: random.choice(_NAMES) for endpoint_id in record["endpointIds"]}
        keys = {change: random.sample(_KEYS, random.choice((0, 0, 1, 2))) for change in ("removed", "added", "updated")}
        if self._codec.revision.name == "kaa-2017-04":
            return event_type, record | keys
        record["removed"], record["added"] = (
            {key: random.choice(_VALUES) for key in keys[change]} for change in ("removed", "added")
        )
        record["updated"] = {key: _change(random.choice(_VALUES)) for key in keys["updated"]}
        return event_type, record

    def _timestamp(self) -> int:
        now = self._begin + 5 * self._count
        return self._random.choice(
            (
                *(now + self._random.randint(-_JITTER_MS, _JITTER_MS) for _ in range(8)),
                now - _AN_HOUR_MS,
                now + 24 * _AN_HOUR_MS,
                self._random.choice((0, -1, 2**63 - 1, -(2**63))),
            )
        )


def _change(value: str | None) -> Record:
    return {"newValue": value, "oldValue": None}


def _named(record: Record, endpoint_id: str) -> Record:
    """Return the fields of a record that name endpoints, with one more endpoint among them."""
    return {
        "endpointId": endpoint_id,
        "endpointIds": [*record["endpointIds"], endpoint_id],
        "endpoints": {**record["endpoints"], endpoint_id: "v1"},
    }


def _empty_id(record: Record) -> Record:
    return _named(record, "")


def _unstorable(record: Record) -> Record:
    return _named(record, "a\0b")


def _too_long(record: Record) -> Record:
    return _named(record, "ü" * 2000)


def _unstorable_value(record: Record) -> Record:
    """Spoil a metadata value, or an endpoint id if the revision has no values."""
    if isinstance(record["added"], list):
        return _unstorable(record)
    (bad,) = Random(record["timestamp"]).sample(_BAD_VALUES, 1)  # noqa: S311 - as above
    return {"added": {**record["added"], "bad": bad}, "reasonPhrase": "a\0b", "statusCode": 500}


_SPOILERS: tuple[Callable[[Record], Record], ...] = (_empty_id, _unstorable, _too_long, _unstorable_value)
_SOUND: tuple[tuple[Callable[[Traffic], Wire], int], ...] = ((Traffic._ordinary, 480), (Traffic._hostile, 440))
_SOURCES = (
    *_SOUND,
    (Traffic._malformed, 45),
    (Traffic._unknown, 30),
    (Traffic._refused, 3),
)
