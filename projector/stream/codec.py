"""Avro payloads to domain events and back, in the revision that the settings name."""

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import fastavro
from fastavro.schema import SchemaParseException

from projector.domain.events import Event
from projector.domain.messages import Message, Origin, Skipped
from projector.domain.revision_hint import with_hint
from projector.domain.stamps import Stamp, occurred_at
from projector.errors import PoisonError, PoisonReason, SettingError
from projector.stream import glance, subjects
from projector.stream.limits import checked_text, checked_token
from projector.stream.markers import find_marker
from projector.stream.protocol import REVISIONS, find_revision
from projector.stream.revisions import EventType, Record, Translate

_SUBJECTS_REMEMBERED = 10_000
_SIGNS_OF_ANOTHER_REVISION: frozenset[PoisonReason] = frozenset({"malformed-payload", "trailing-bytes"})


class _Route(NamedTuple):
    """How to read the messages of one subject."""

    originator: str
    type: str
    schema: Any
    translate: Translate
    preceding: glance.Preceding | None


class Codec:
    """Reads and writes the messages of one revision.

    Raises:
        SettingError: no such revision.
    """

    def __init__(self, revision: str, schemas: Path) -> None:
        """Load the schemas of a revision from `schemas/<revision>/*.avsc`."""
        self.revision = find_revision(revision)
        self._folder = schemas
        self._schemas = {
            name: _load(schemas / revision / f"{event_type.schema}.avsc", event_type)
            for name, event_type in self.revision.event_types.items()
        }
        # Subjects are few and repeat; the bound protects against a publisher that invents new ones.
        self._route = lru_cache(maxsize=_SUBJECTS_REMEMBERED)(self._find_route)

    def decode(self, message: Message) -> Sequence[Event] | Skipped:
        """Return the events of a message: none, one or several, or that it is of an unknown type or a marker.

        A message of a group that the revision does not know has none; a server that can filter by group
        does not deliver it.

        Raises:
            PoisonError: the message is of a known type and cannot be folded.
        """
        marker = find_marker(message)
        if marker is not None:
            return marker
        route = self._route(message.subject)
        if route is None:
            return ()
        if isinstance(route, Skipped):
            return route
        try:
            return _translate(route, message)
        except PoisonError as error:
            other = self._other_revision_of(message) if error.reason in _SIGNS_OF_ANOTHER_REVISION else None
            if other is None:
                raise
            raise PoisonError(error.reason, with_hint(error.detail, other)) from error

    def reads(self, message: Message) -> bool:
        """Return whether a message is of a known type and can be folded."""
        try:
            route = self._route(message.subject)
            if not isinstance(route, _Route) or find_marker(message) is not None:
                return False
            _translate(route, message)
        except PoisonError:
            return False
        return True

    def glance(self, message: Message) -> bytes | None:
        """Return the id of the only endpoint that a message can name, in UTF-8; None if that takes decoding it."""
        try:
            route = self._route(message.subject)
        except PoisonError:
            return None
        if not isinstance(route, _Route) or route.preceding is None:
            return None
        return glance.endpoint_id(message.payload, route.preceding)

    def may_name(self, message: Message, endpoint_id: bytes) -> bool:
        """Return whether a message may name an endpoint, given its id in UTF-8: Avro writes a string as these bytes."""
        return endpoint_id in message.payload

    def origin(self, message: Message) -> Origin | None:
        """Return the origin and the uncorrected time that a message claims; None if they cannot be read."""
        try:
            route = self._route(message.subject)
            if route is None or isinstance(route, Skipped):
                return None
            record = _read(route, message.payload)
        except PoisonError:
            return None
        return Origin(route.originator, record["originatorReplicaId"] or None, record["timestamp"])

    def explain(self, subject: str, payload: bytes) -> Record:
        """Return the fields of a payload that can be read, for display; those after a fault are missing."""
        parsed = subjects.parse(subject)
        schema = None if parsed is None else self._schemas.get(parsed.type)
        record: Record = {}
        source = BytesIO(payload)
        for field in () if schema is None else schema["fields"]:
            try:
                value = fastavro.schemaless_reader(source, fastavro.parse_schema(field["type"]), None)
            except Exception:  # noqa: BLE001 - corrupt bytes can raise any error
                break
            # Bytes become text as in Avro's JSON encoding.
            record[field["name"]] = value.decode("latin-1") if isinstance(value, bytes) else value
        return record

    def encode(self, event_type: str, record: Record) -> bytes:
        """Return the payload of a record of an event type; missing fields take their defaults."""
        payload = BytesIO()
        fastavro.schemaless_writer(payload, self._schemas[event_type], record)
        return payload.getvalue()

    @cached_property
    def _other_codecs(self) -> Sequence["Codec"]:
        """The codecs of the other revisions, which only explain parked messages and never decide what is folded."""
        codecs = []
        for name in REVISIONS:
            if name != self.revision.name:
                with suppress(SettingError):  # a revision whose schemas are missing explains nothing
                    codecs.append(Codec(name, self._folder))
        return codecs

    def _other_revision_of(self, message: Message) -> str | None:
        """Return the name of another revision in which a message can be folded."""
        return next((codec.revision.name for codec in self._other_codecs if codec.reads(message)), None)

    def _find_route(self, subject: str) -> _Route | Skipped | None:
        parsed = subjects.parse(subject)
        if parsed is None:
            return Skipped("(foreign subject)")
        if parsed.group not in self.revision.groups or parsed.type == parsed.group:
            return None  # the filters of `subjects.filters` do not select it
        event_type = self.revision.event_types.get(parsed.type)
        if event_type is None:
            return Skipped(_printable(parsed.type))
        originator = checked_token(parsed.originator, "the originator in the subject")
        schema = self._schemas[parsed.type]
        return _Route(originator, parsed.type, schema, event_type.translate, glance.preceding(schema["fields"]))


def encode_text(text: str) -> bytes:
    """Return a text as every revision writes it into a payload."""
    written = BytesIO()
    fastavro.schemaless_writer(written, "string", text)
    return written.getvalue()


def _load(path: Path, event_type: EventType) -> Any:
    try:
        return fastavro.parse_schema(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, SchemaParseException) as error:
        raise SettingError(f"schema {event_type.schema!r} cannot be read from {path}: {error}") from error


def _translate(route: _Route, message: Message) -> Sequence[Event]:
    record = _read(route, message.payload)
    replica = record["originatorReplicaId"] or None
    if replica is not None:
        # There are few replicas, but a stamp in every register: interning saves memory.
        replica = intern(checked_text(replica, "originatorReplicaId"))
    stamp = Stamp(
        message.position,
        occurred_at(record["timestamp"], message.stored_at),
        route.originator,
        replica,
    )
    return route.translate(record, stamp)


def _read(route: _Route, payload: bytes) -> Record:
    source = BytesIO(payload)
    try:
        record: Record = fastavro.schemaless_reader(source, route.schema, None)  # type: ignore[assignment]
    except Exception as error:  # corrupt bytes can raise any error in the reader
        raise PoisonError(
            "malformed-payload",
            f"{len(payload)} bytes do not decode as {route.type}, stopped at byte {source.tell()}: "
            f"{type(error).__name__}: {error}".rstrip(": "),
        ) from error
    if source.tell() != len(payload):
        raise PoisonError(
            "trailing-bytes",
            f"{len(payload) - source.tell()} of {len(payload)} bytes are left over after the {route.type} record",
        )
    return record


def _printable(name: str) -> str:
    """Return the name of an unknown type with unprintable characters escaped, so that it can be stored and shown."""
    return name if name.isprintable() else name.encode("unicode_escape", "surrogatepass").decode("ascii")
