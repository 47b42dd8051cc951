"""Messages as the model reads them: an Avro reader and a table of records of its own, for each revision.

It shares no code with the projector.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]

_LONGEST_ID = 2692
_DEEPEST = 512
_NUMERIC_DIGITS = 131_072  # before the decimal point of a Postgres numeric
_NUMERIC_SCALE = 16_383  # after it

_HEAD = (("correlationId", "string"), ("timestamp", "long"), ("timeout", "long"))
_REPLICA = ("originatorReplicaId", "string")
_REPLICA_OR_NULL = ("originatorReplicaId", "optional")

_ONE_2017 = (("endpointId", "string"), ("appVersionName", "string"))
_CONFIG_2017 = (*_ONE_2017, ("configId", "string"), _REPLICA_OR_NULL)
_ONE_2020 = (("appVersionName", "string"), ("endpointId", "string"))

RECORDS: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "kaa-2017-04": {
        "connectivity.connected": (*_ONE_2017, _REPLICA),
        "connectivity.disconnected": (("endpointIds", "strings"), _REPLICA),
        "lifecycle.registered": (*_ONE_2017, _REPLICA_OR_NULL),
        "lifecycle.appversion-updated": (*_ONE_2017, ("previousAppVersionName", "string"), _REPLICA_OR_NULL),
        "metadata.updated": (
            *_ONE_2017,
            ("removed", "strings"),
            ("added", "strings"),
            ("updated", "strings"),
            _REPLICA_OR_NULL,
        ),
        "config.new-available": _CONFIG_2017,
        "config.updated": _CONFIG_2017,
    },
    "kaa-2020-05": {
        "connectivity.connected": (("endpoints", "versions"), _REPLICA),
        "connectivity.disconnected": (("endpoints", "versions"), _REPLICA),
        "lifecycle.registered": (*_ONE_2020, _REPLICA),
        "lifecycle.unregistered": (*_ONE_2020, _REPLICA),
        "lifecycle.appversion-updated": (
            ("appVersionName", "string"),
            ("previousAppVersionName", "string"),
            ("endpointId", "string"),
            _REPLICA,
        ),
        "metadata.updated": (
            *_ONE_2020,
            ("removed", "values"),
            ("added", "values"),
            ("updated", "changes"),
            _REPLICA,
        ),
        "config.updated": (
            *_ONE_2020,
            ("configId", "string"),
            ("contentType", "string"),
            ("content", "blob"),
            _REPLICA_OR_NULL,
        ),
        "config.applied": (
            *_ONE_2020,
            ("configId", "string"),
            _REPLICA_OR_NULL,
            ("statusCode", "long"),
            ("reasonPhrase", "optional"),
        ),
    },
}
"""By revision and type: the fields after the three that every record begins with."""


class BadMessageError(Exception):
    """A message cannot be folded; the text is the reason of its dead letter."""


def decode(revision: str, kind: str, payload: bytes) -> Record:
    """Read a record to its last byte."""
    avro = _Avro(payload)
    record = {name: getattr(avro, form)() for name, form in (*_HEAD, *RECORDS[revision][kind])}
    if avro.at < len(payload):
        raise BadMessageError("trailing-bytes")
    return record


def endpoints(record: Record) -> dict[str, str]:
    """Return the endpoints that a record is about, each with the application version that it names."""
    if "endpoints" in record:
        named: dict[str, str] = record["endpoints"]
    elif "endpointIds" in record:
        named = dict.fromkeys(record["endpointIds"], "")
    else:
        named = {record["endpointId"]: record["appVersionName"]}
    for endpoint_id in named:
        if not endpoint_id:
            raise BadMessageError("empty-endpoint-id")
        if len(endpoint_id.encode()) > _LONGEST_ID:
            raise BadMessageError("endpoint-id-too-long")
        storable(endpoint_id)
    return named


def storable(text: str | None) -> str | None:
    """Return a text that Postgres can hold."""
    if text is not None and ("\0" in text or any("\ud800" <= character <= "\udfff" for character in text)):
        raise BadMessageError("unstorable-text")
    return text


def json_value(text: str | None) -> Any:
    """Return a metadata value as JSON, with every digit of its numbers."""
    if text is None:
        return None
    try:
        value = json.loads(text, parse_int=Decimal, parse_float=Decimal, parse_constant=_no_json)
    except ValueError:
        return storable(text)
    except RecursionError:
        raise BadMessageError("unstorable-json") from None
    _check(value, _DEEPEST)
    return value


def _no_json(text: str) -> None:
    raise ValueError(text)


def _check(value: Any, deepest: int) -> None:
    match value:
        case str():
            storable(value)
        case Decimal():
            exponent = value.as_tuple().exponent
            assert isinstance(exponent, int)
            if (value and value.adjusted() >= _NUMERIC_DIGITS) or -exponent > _NUMERIC_SCALE:
                raise BadMessageError("unstorable-json")
        case list() | dict():
            if not deepest:
                raise BadMessageError("unstorable-json")
            for part in (*value, *value.values()) if isinstance(value, dict) else value:
                _check(part, deepest - 1)


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

    def blob(self) -> bytes:
        return self._take(self.long())

    def string(self) -> str:
        try:
            return self.blob().decode()
        except UnicodeDecodeError:
            raise BadMessageError("malformed-payload") from None

    def optional(self) -> str | None:
        branch = self.long()
        if branch not in (0, 1):
            raise BadMessageError("malformed-payload")
        return self.string() if branch else None

    def strings(self) -> list[str]:
        return [self.string() for _ in self._items()]

    def versions(self) -> dict[str, str]:
        return {self.string(): self.string() for _ in self._items()}

    def values(self) -> dict[str, str | None]:
        return {self.string(): self.optional() for _ in self._items()}

    def changes(self) -> dict[str, str | None]:
        """A map of new and old values; the old ones are ignored."""
        return {self.string(): (self.optional(), self.optional())[0] for _ in self._items()}

    def _items(self) -> Any:
        """Yield once for each item of an array or a map."""
        while count := self.long():
            if count < 0:
                self.long()  # how many bytes the block takes
            yield from range(abs(count))

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._payload) - self.at:
            raise BadMessageError("malformed-payload")
        self.at += count
        return self._payload[self.at - count : self.at]
