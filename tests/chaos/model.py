"""What the stream implies, found a second way: docs/explanation/semantics.md put into the plainest code.

It shares no code with the projector, not even the Avro reader, and folds one message at a time.
So a rule that the projector gets wrong shows here; folding with the projector's own rules would repeat the mistake.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from zlib import crc32

from tests.chaos.wire import RECORDS, BadMessageError, Record, decode, endpoints, json_value, storable

Stamp: TypeAlias = tuple[int, int, str, str | None]
"""Position, time, originator, replica."""

_GROUPS = ("connectivity", "lifecycle", "metadata", "config")
_SUBJECT_TOKENS = 7
_BEFORE_GROUP = 5
_NAMES_THE_VERSION = ("connectivity.connected", "lifecycle.registered", "lifecycle.appversion-updated")


@dataclass
class Endpoint:
    """The registers of one endpoint by name, each a value and its stamp; where only the stamp counts, no value."""

    registers: dict[str, tuple[Any, Stamp]] = field(default_factory=dict)
    keys: dict[str, tuple[bool, Any, Stamp]] = field(default_factory=dict)
    """Metadata by key: whether it is there, its value, and its stamp."""
    unregistered: Stamp | None = None
    last: tuple[int, int] = (0, 0)

    def stamp(self, name: str) -> Stamp | None:
        return self.registers[name][1] if name in self.registers else None

    def value(self, name: str) -> Any:
        return self.registers[name][0] if name in self.registers else None

    def take(self, name: str, stamp: Stamp, value: Any = None) -> None:
        """Set a register if the stamp supersedes what is there."""
        if _supersedes(stamp, self.stamp(name)):
            self.registers[name] = value, stamp


@dataclass
class Model:
    """The tables as a single thread would write them."""

    revision: str = "kaa-2017-04"
    refused: str = ""
    """An endpoint that this database objects to."""
    shards: int = 1
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    dead_letters: dict[int, str] = field(default_factory=dict)
    """Reason by position."""
    skipped: Counter[str] = field(default_factory=Counter)
    position: int = 0
    """Of the last message that the projector subscribes to."""

    def fold(self, position: int, stored_at: int, subject: str, payload: bytes) -> None:
        """Take in the next message of the stream."""
        if not is_subscribed_to(subject):
            return
        self.position = position
        tokens = subject.split(".")
        kind = ".".join(tokens[_BEFORE_GROUP:])
        if kind not in RECORDS[self.revision]:
            self.skipped[kind] += 1
            return
        try:
            record = decode(self.revision, kind, payload)
            replica = storable(record["originatorReplicaId"]) or None
            named = endpoints(record)
            facts = _facts(self.revision, kind, record, named)
        except BadMessageError as bad:
            self.dead_letters[position] = str(bad)
            return
        if self.refused in named:
            self.dead_letters[position] = "database-rejected"
            named = {one: version for one, version in named.items() if not self._shares_a_shard(one)}
        timestamp = record["timestamp"]
        occurred_at = stored_at if timestamp <= 0 else min(timestamp, stored_at)
        stamp = (position, occurred_at, tokens[3], replica)
        for endpoint_id, version in named.items():
            endpoint = self.endpoints.setdefault(endpoint_id, Endpoint())
            endpoint.last = max(endpoint.last, (position, occurred_at))
            if _supersedes(stamp, endpoint.unregistered):
                _apply(endpoint, kind, stamp, version, facts)

    def _shares_a_shard(self, endpoint_id: str) -> bool:
        """Tell whether an endpoint is in the shard of the one that is refused (decision 26)."""
        return crc32(endpoint_id.encode()) % self.shards == crc32(self.refused.encode()) % self.shards

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the columns that users rely on, by endpoint; times in Unix ms."""
        return {endpoint_id: _row(endpoint_id, endpoint) for endpoint_id, endpoint in self.endpoints.items()}


def is_subscribed_to(subject: str) -> bool:
    """Tell whether a message is of a group that the projector knows; other protocols share the prefix."""
    tokens = subject.split(".")
    return len(tokens) >= _SUBJECT_TOKENS and tokens[_BEFORE_GROUP] in _GROUPS


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


def _ends(closed: Stamp, opened: Stamp) -> bool:
    """Tell whether a disconnect ends the session that a connect opened."""
    return _supersedes(closed, opened) and not _known_and_other(closed, opened)


def _facts(revision: str, kind: str, record: Record, named: dict[str, str]) -> Record:
    """Return what a record of any revision says, apart from its endpoints."""
    facts: Record = {}
    if kind in _NAMES_THE_VERSION:
        for version in named.values():
            storable(version)
    if kind == "lifecycle.appversion-updated":
        facts["previous"] = storable(record["previousAppVersionName"]) or None
    if kind == "metadata.updated":
        if revision == "kaa-2017-04":
            present = dict.fromkeys((*record["added"], *record["updated"]))
        else:
            present = {key: json_value(value) for key, value in {**record["updated"], **record["added"]}.items()}
        facts["present"] = {storable(key): value for key, value in present.items()}
        facts["removed"] = [storable(key) for key in record["removed"] if key not in present]
    if "configId" in record:
        facts["config"] = storable(record["configId"])
        if kind == "config.new-available" or (revision == "kaa-2020-05" and kind == "config.updated"):
            facts["outcome"] = "available"
        elif 200 <= record.get("statusCode", 200) < 300:
            facts["outcome"] = "applied"
        else:
            facts["outcome"] = "failed"
            facts["failure"] = (facts["config"], record["statusCode"], storable(record["reasonPhrase"]))
    return facts


def _apply(endpoint: Endpoint, kind: str, stamp: Stamp, version: str, facts: Record) -> None:
    match kind:
        case "connectivity.connected":
            endpoint.take("connected", stamp)
        case "connectivity.disconnected":
            _disconnect(endpoint, stamp)
        case "lifecycle.registered":
            endpoint.take("registered", stamp)
        case "lifecycle.unregistered":
            _unregister(endpoint, stamp)
        case "lifecycle.appversion-updated":
            endpoint.take("previous", stamp, facts["previous"])
        case "metadata.updated":
            _change_metadata(endpoint, facts, stamp)
        case _:
            endpoint.take(facts["outcome"], stamp, facts.get("failure", facts["config"]))
    if kind in _NAMES_THE_VERSION and version:
        endpoint.take("version", stamp, version)


def _change_metadata(endpoint: Endpoint, facts: Record, stamp: Stamp) -> None:
    changes: dict[str, tuple[bool, Any]] = dict.fromkeys(facts["removed"], (False, None))
    changes |= {key: (True, value) for key, value in facts["present"].items()}
    for key, (present, value) in changes.items():
        if _supersedes(stamp, endpoint.keys[key][2] if key in endpoint.keys else None):
            endpoint.keys[key] = present, value, stamp
    endpoint.take("metadata", stamp)


def _disconnect(endpoint: Endpoint, stamp: Stamp) -> None:
    opened, held = endpoint.stamp("connected"), endpoint.stamp("disconnected")
    if opened is not None and not _ends(stamp, opened):
        return
    in_the_way = held is not None and (opened is None or _ends(held, opened))
    if in_the_way and not _supersedes(stamp, held):
        return
    endpoint.registers["disconnected"] = None, stamp


def _unregister(endpoint: Endpoint, stamp: Stamp) -> None:
    for name in [name for name, (_, held) in endpoint.registers.items() if _supersedes(stamp, held)]:
        del endpoint.registers[name]
    for key in [key for key, (_, _, since) in endpoint.keys.items() if _supersedes(stamp, since)]:
        del endpoint.keys[key]
    endpoint.unregistered = stamp


def _row(endpoint_id: str, endpoint: Endpoint) -> dict[str, Any]:
    opened, closed = endpoint.stamp("connected"), endpoint.stamp("disconnected")
    rests_on: Stamp | None
    if opened and not (closed and _ends(closed, opened)):
        status, rests_on = "connected", opened
    elif closed:
        status, rests_on = "disconnected", closed
    else:
        status, rests_on = "unknown", None
    config_status = _config_status(endpoint)
    failed = endpoint.value("failed") or (None, None, None)
    registered = endpoint.stamp("registered")
    return {
        "endpoint_id": endpoint_id,
        "connectivity_status": status,
        "connectivity_changed_at": _time(rests_on),
        "connected_at": _time(opened),
        "disconnected_at": _time(closed),
        "connected_originator": opened and opened[2],
        "connected_replica": opened and opened[3],
        "app_version": endpoint.value("version"),
        "app_version_changed_at": _time(endpoint.stamp("version")),
        "previous_app_version": endpoint.value("previous"),
        "registration_status": "registered" if registered else "unregistered" if endpoint.unregistered else "unknown",
        "registered_at": _time(registered),
        "unregistered_at": _time(endpoint.unregistered),
        "metadata": {key: value for key, (present, value, _) in endpoint.keys.items() if present},
        "metadata_changed_at": _time(endpoint.stamp("metadata")),
        "config_status": config_status,
        "config_available_id": endpoint.value("available"),
        "config_available_at": _time(endpoint.stamp("available")),
        "config_applied_id": endpoint.value("applied"),
        "config_applied_at": _time(endpoint.stamp("applied")),
        "config_pending_id": endpoint.value("available") if config_status == "pending" else None,
        "config_failed_id": failed[0],
        "config_failed_at": _time(endpoint.stamp("failed")),
        "config_failure_code": failed[1],
        "config_failure_reason": failed[2],
        "last_event_seq": endpoint.last[0],
        "last_event_at": endpoint.last[1],
    }


def _config_status(endpoint: Endpoint) -> str:
    available, applied, failed = map(endpoint.stamp, ("available", "applied", "failed"))
    if failed and _supersedes(failed, applied):
        same = endpoint.value("failed")[0] == endpoint.value("available")
        if available is None or (same and _supersedes(failed, available)):
            return "failed"
    if available and endpoint.value("available") != (endpoint.value("applied") or ""):
        return "pending"
    return "applied" if endpoint.value("applied") else "none"


def _time(stamp: Stamp | None) -> int | None:
    return stamp and stamp[1]
