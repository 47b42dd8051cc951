"""The messages of published changes."""

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any
from urllib.parse import quote

import msgspec

from projector.domain.changes import ChangeId, LoggedChange, Place
from projector.stream.units import unix_ms

_TIMES = ("committed_at", "occurred_at", "stored_at")
_HELD = "".join(map(chr, range(0x21, 0x7F))).translate(dict.fromkeys(map(ord, "%.*>")))
"""Characters that a token of a subject holds as they are."""
_LONGEST_TOKEN = 2000
"""Servers close a connection that sends a protocol line of more than 4,096 bytes."""
_DIGEST_BYTES = 12
_VALUES = ("before", "after")

_encode = msgspec.json.Encoder().encode


class _Key(msgspec.Struct):
    shard: int
    commit_no: int
    committed_at: datetime
    endpoint_id: str
    facet: str
    position: int | None


_decode_key = msgspec.json.Decoder(_Key).decode


def subject(prefix: str, change: LoggedChange) -> str:
    """Return the subject of a change."""
    return f"{prefix}.{change.facet}.{token(change.endpoint_id)}"


@lru_cache(maxsize=20_000)
def token(endpoint_id: str) -> str:
    """Return the token for an endpoint: its id with percent escapes, or its SHA-256 if that is too long."""
    escaped = quote(endpoint_id, safe=_HELD).replace(".", "%2E")
    return escaped if len(escaped) <= _LONGEST_TOKEN else f"%sha256-{sha256(endpoint_id.encode()).hexdigest()}"


def message_id(stream: str, change: LoggedChange) -> str:
    """Return a text that no other change has, and that is the same each time; `stream` is that of the events."""
    digest = blake2b(change.endpoint_id.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return (
        f"{stream}.{change.shard}.{change.commit_no}.{change.committed_at}."
        f"{change.position or 0}.{change.facet}.{digest}"
    )


def payload(change: LoggedChange, most_bytes: int) -> bytes:
    """Return the JSON of a change; values that make it too large are left out, and named in `omitted`."""
    columns: dict[str, Any] = change._asdict()
    for name in _TIMES:
        columns[name] = _iso(columns[name])
    for name in _VALUES:
        columns[name] = columns[name] and msgspec.Raw(columns[name])
    encoded = _encode(columns)
    omitted: list[str] = []
    for name in _VALUES:
        if len(encoded) > most_bytes and columns[name] is not None:
            columns[name] = None
            omitted.append(name)
            encoded = _encode(columns | {"omitted": omitted})
    return encoded


def identify(encoded: bytes) -> ChangeId | None:
    """Return which change a message contains; None if it contains none."""
    try:
        key = _decode_key(encoded)
    except msgspec.MsgspecError:
        return None
    if key.committed_at.tzinfo is None:
        return None
    place = Place(key.commit_no, (key.position or 0, key.endpoint_id, key.facet))
    return ChangeId(key.shard, unix_ms(key.committed_at), place)


@lru_cache(maxsize=20_000)
def _iso(at: int | None) -> str | int | None:
    """Return a time in ISO 8601; one beyond the years of the calendar stays a number."""
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return at
