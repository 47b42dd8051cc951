"""What the stream implies, once more: docs/explanation/semantics.md read as text and written down in the plainest way.

It shares no code with the projector, not even the Avro reader, and folds one message at a time.
So a rule that the projector has wrong shows here, which folding with the projector's own rules would repeat.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Stamp: TypeAlias = tuple[int, int, str, str | None]
"""Position, time, originator, replica."""

_LONGEST_ID = 2692

_HEAD = (("correlationId", "string"), ("timestamp", "long"), ("timeout", "long"))
_SUBJECT_TOKENS = 7
_ONE_ENDPOINT = (("endpointId", "string"), ("appVersionName", "string"))
_CONFIG = (*_ONE_ENDPOINT, ("configId", "string"))
_KEYS = (("removed", "strings"), ("added", "strings"), ("updated", "strings"))
_RECORDS = {
    "connectivity.connected": (*_ONE_ENDPOINT, ("originatorReplicaId", "string")),
    "connectivity.disconnected": (("endpointIds", "strings"), ("originatorReplicaId", "string")),
    "lifecycle.registered": (*_ONE_ENDPOINT, ("originatorReplicaId", "optional")),
    "lifecycle.appversion-updated": (
        *_ONE_ENDPOINT,
        ("previousAppVersionName", "string"),
        ("originatorReplicaId", "optional"),
    ),
    "metadata.updated": (*_ONE_ENDPOINT, *_KEYS, ("originatorReplicaId", "optional")),
    "config.new-available": (*_CONFIG, ("originatorReplicaId", "optional")),
    "config.updated": (*_CONFIG, ("originatorReplicaId", "optional")),
}

_NAMES_THE_VERSION = ("connectivity.connected", "lifecycle.registered", "lifecycle.appversion-updated")


class BadMessageError(Exception):
    """It cannot be folded; the text is the reason of its dead letter."""


@dataclass
class Endpoint:
    """The registers of one endpoint: nothing, or a value and its stamp."""

    connected: Stamp | None = None
    disconnected: Stamp | None = None
    version: tuple[str, Stamp] | None = None
    previous: tuple[str | None, Stamp] | None = None
    registered: Stamp | None = None
    keys: dict[str, tuple[bool, Stamp]] = field(default_factory=dict)
    metadata_changed: Stamp | None = None
    available: tuple[str, Stamp] | None = None
    applied: tuple[str, Stamp] | None = None
    last: tuple[int, int] = (0, 0)


@dataclass
class Model:
    """The tables as one thread would have written them."""

    refused: str = ""
    """An endpoint that this database objects to."""
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    dead_letters: dict[int, str] = field(default_factory=dict)
    """Reason by position."""
    skipped: Counter[str] = field(default_factory=Counter)

    def fold(self, position: int, stored_at: int, subject: str, payload: bytes) -> None:
        """Take in the next message of the stream."""
        tokens = subject.split(".")
        kind = ".".join(tokens[5:])
        if len(tokens) != _SUBJECT_TOKENS or kind not in _RECORDS:
            self.skipped[kind] += 1
            return
        try:
            record = _decode(kind, payload)
            named = _checked(record, self.refused)
        except BadMessageError as bad:
            self.dead_letters[position] = str(bad)
            return
        timestamp = record["timestamp"]
        occurred_at = stored_at if timestamp <= 0 else min(timestamp, stored_at)
        stamp = (position, occurred_at, tokens[3], record["originatorReplicaId"] or None)
        for endpoint_id in named:
            endpoint = self.endpoints.setdefault(endpoint_id, Endpoint())
            _apply(endpoint, kind, record, stamp)
            endpoint.last = max(endpoint.last, (position, occurred_at))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the columns that users rely on, by endpoint; times in Unix ms."""
        return {endpoint_id: _row(endpoint_id, endpoint) for endpoint_id, endpoint in self.endpoints.items()}


def _known_and_same(a: Stamp, b: Stamp) -> bool:
    return a[3] is not None and b[3] is not None and a[2:] == b[2:]


def _known_and_other(a: Stamp, b: Stamp) -> bool:
    return a[3] is not None and b[3] is not None and a[2:] != b[2:]


def _supersedes(a: Stamp, b: Stamp | None) -> bool:
    if b is None:
        return True
    if _known_and_same(a, b):
        return a[0] > b[0]
    return (a[1], a[0]) > (b[1], b[0])


def _newest(register: Stamp | None, stamp: Stamp) -> Stamp:
    """Return what a register that is nothing but a stamp holds after an event."""
    return stamp if register is None or _supersedes(stamp, register) else register


def _newer(register: Any, value: Any, stamp: Stamp) -> Any:
    """Return what a register of a value holds after an event."""
    return (value, stamp) if _supersedes(stamp, register and register[1]) else register


def _apply(endpoint: Endpoint, kind: str, record: Mapping[str, Any], stamp: Stamp) -> None:
    match kind:
        case "connectivity.connected":
            endpoint.connected = _newest(endpoint.connected, stamp)
        case "connectivity.disconnected":
            _disconnect(endpoint, stamp)
        case "lifecycle.registered":
            endpoint.registered = _newest(endpoint.registered, stamp)
        case "lifecycle.appversion-updated":
            endpoint.previous = _newer(endpoint.previous, record["previousAppVersionName"] or None, stamp)
        case "metadata.updated":
            _change_metadata(endpoint, record, stamp)
        case "config.new-available":
            endpoint.available = _newer(endpoint.available, record["configId"], stamp)
        case "config.updated":
            endpoint.applied = _newer(endpoint.applied, record["configId"], stamp)
    if kind in _NAMES_THE_VERSION and record["appVersionName"]:
        endpoint.version = _newer(endpoint.version, record["appVersionName"], stamp)


def _change_metadata(endpoint: Endpoint, record: Mapping[str, Any], stamp: Stamp) -> None:
    present = {*record["added"], *record["updated"]}
    for key in {*present, *record["removed"]}:
        endpoint.keys[key] = _newer(endpoint.keys.get(key), key in present, stamp)
    endpoint.metadata_changed = _newest(endpoint.metadata_changed, stamp)


def _disconnect(endpoint: Endpoint, stamp: Stamp) -> None:
    if endpoint.connected is not None:
        fenced = _known_and_other(stamp, endpoint.connected)
        if fenced or not _supersedes(stamp, endpoint.connected):
            return
    endpoint.disconnected = _newest(endpoint.disconnected, stamp)


def _row(endpoint_id: str, endpoint: Endpoint) -> dict[str, Any]:
    opened, closed = endpoint.connected, endpoint.disconnected
    rests_on: Stamp | None
    if opened and closed and not _known_and_other(opened, closed) and _supersedes(closed, opened):
        status, rests_on = "disconnected", closed
    elif opened:
        status, rests_on = "connected", opened
    else:
        status, rests_on = ("disconnected", closed) if closed else ("unknown", None)
    available, applied = endpoint.available, endpoint.applied
    pending = available is not None and (applied is None or applied[0] != available[0])
    return {
        "endpoint_id": endpoint_id,
        "connectivity_status": status,
        "connectivity_changed_at": _time(rests_on),
        "connected_at": _time(opened),
        "disconnected_at": _time(closed),
        "connected_originator": opened and opened[2],
        "connected_replica": opened and opened[3],
        "app_version": endpoint.version and endpoint.version[0],
        "app_version_changed_at": endpoint.version and _time(endpoint.version[1]),
        "previous_app_version": endpoint.previous and endpoint.previous[0],
        "registered_at": _time(endpoint.registered),
        "metadata": {key: None for key, (present, _) in endpoint.keys.items() if present},
        "metadata_changed_at": _time(endpoint.metadata_changed),
        "config_status": "pending" if pending else "applied" if available or applied else "none",
        "config_available_id": available and available[0],
        "config_available_at": available and _time(available[1]),
        "config_applied_id": applied and applied[0],
        "config_applied_at": applied and _time(applied[1]),
        "config_pending_id": available[0] if available and pending else None,
        "last_event_seq": endpoint.last[0],
        "last_event_at": endpoint.last[1],
    }


def _time(stamp: Stamp | None) -> int | None:
    return stamp and stamp[1]


def _checked(record: Mapping[str, Any], refused: str) -> Sequence[str]:
    """Return the endpoints that a record is about."""
    named: list[str] = record["endpointIds"] if "endpointIds" in record else [record["endpointId"]]
    if "" in named:
        raise BadMessageError("empty-endpoint-id")
    if any(len(endpoint_id.encode()) > _LONGEST_ID for endpoint_id in named):
        raise BadMessageError("endpoint-id-too-long")
    if record.get("configId") == "":
        raise BadMessageError("empty-config-id")
    kept = [value for name, value in record.items() if name != "correlationId"]
    if any("\0" in text for value in kept for text in (value if isinstance(value, list) else (str(value),))):
        raise BadMessageError("unstorable-text")
    if refused in named:
        raise BadMessageError("database-rejected")
    return named


def _decode(kind: str, payload: bytes) -> dict[str, Any]:
    avro = _Avro(payload)
    record = {name: getattr(avro, form)() for name, form in (*_HEAD, *_RECORDS[kind])}
    if avro.at < len(payload):
        raise BadMessageError("trailing-bytes")
    return record


class _Avro:
    """Reads the few forms that the protocol has, from bytes without a container."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.at = 0

    def long(self) -> int:
        number = shift = 0
        while True:
            byte = self._take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return (number >> 1) ^ -(number & 1)

    def string(self) -> str:
        try:
            return self._take(self.long()).decode()
        except UnicodeDecodeError:
            raise BadMessageError("malformed-payload") from None

    def optional(self) -> str | None:
        branch = self.long()
        if branch not in (0, 1):
            raise BadMessageError("malformed-payload")
        return self.string() if branch else None

    def strings(self) -> list[str]:
        texts: list[str] = []
        while count := self.long():
            if count < 0:
                self.long()  # how many bytes the block takes
            texts += [self.string() for _ in range(abs(count))]
        return texts

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._payload) - self.at:
            raise BadMessageError("malformed-payload")
        self.at += count
        return self._payload[self.at - count : self.at]
