import json
from pathlib import Path
from typing import Any

import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form

from projector.stream.protocol import REVISIONS

SCHEMAS = Path(__file__).parents[2] / "schemas"
NAMESPACE = "org.kaaproject.ipc.event.gen.v1.endpoint"

NO_DEFAULT = object()
STRING, LONG = "string", "long"
STRINGS = {"type": "array", "items": "string"}
MAYBE_STRING = ["null", "string"]

Field = tuple[str, Any, Any]

CORRELATION: Field = ("correlationId", STRING, "")
TIMESTAMP: Field = ("timestamp", LONG, NO_DEFAULT)
TIMEOUT: Field = ("timeout", LONG, -1)
ENDPOINT: Field = ("endpointId", STRING, NO_DEFAULT)
ENDPOINT_OR_EMPTY: Field = ("endpointId", STRING, "")
VERSION: Field = ("appVersionName", STRING, NO_DEFAULT)
VERSION_OR_EMPTY: Field = ("appVersionName", STRING, "")
CONFIG: Field = ("configId", STRING, "")
REPLICA: Field = ("originatorReplicaId", MAYBE_STRING, None)
REPLICA_OR_EMPTY: Field = ("originatorReplicaId", STRING, "")

# By file: the name of its record, its fingerprint, its fields.
KAA_2017_04: dict[str, tuple[str, str, list[Field]]] = {
    "connected": (
        "connectivity.EndpointConnectedEvent",
        "680673a1ab167318",
        [CORRELATION, TIMESTAMP, TIMEOUT, ENDPOINT_OR_EMPTY, VERSION_OR_EMPTY, REPLICA_OR_EMPTY],
    ),
    "disconnected": (
        "connectivity.EndpointDisconnectedEvent",
        "4cd8ccfc554a02b1",
        [CORRELATION, TIMESTAMP, TIMEOUT, ("endpointIds", STRINGS, NO_DEFAULT), REPLICA_OR_EMPTY],
    ),
    "registered": (
        "lifecycle.RegisteredEvent",
        "3ba3f564a477ecb2",
        [CORRELATION, TIMESTAMP, TIMEOUT, ENDPOINT, VERSION, REPLICA],
    ),
    "app-version-updated": (
        "lifecycle.AppVerUpdatedEvent",
        "7a8cd7916da8e9e9",
        [
            CORRELATION,
            ("timestamp", LONG, -1),
            TIMEOUT,
            ENDPOINT,
            VERSION,
            ("previousAppVersionName", STRING, NO_DEFAULT),
            REPLICA,
        ],
    ),
    "metadata-updated": (
        "config.EndpointMetadataUpdatedEvent",
        "ba03ad273fdda211",
        [
            CORRELATION,
            TIMESTAMP,
            TIMEOUT,
            ENDPOINT,
            VERSION_OR_EMPTY,
            ("removed", STRINGS, NO_DEFAULT),
            ("added", STRINGS, NO_DEFAULT),
            ("updated", STRINGS, NO_DEFAULT),
            REPLICA,
        ],
    ),
    "new-config-available": (
        "config.NewConfigAvailable",
        "1bb04363fde27adc",
        [CORRELATION, TIMESTAMP, TIMEOUT, ENDPOINT_OR_EMPTY, VERSION_OR_EMPTY, CONFIG, REPLICA],
    ),
    "config-updated": (
        "config.ConfigUpdated",
        "e8ad7a73e9d0870d",
        [CORRELATION, TIMESTAMP, TIMEOUT, ENDPOINT_OR_EMPTY, VERSION_OR_EMPTY, CONFIG, REPLICA],
    ),
}

TRACE: Field = ("correlationId", STRING, NO_DEFAULT)
TIMEOUT_OR_NEVER: Field = ("timeout", LONG, 0)
ENDPOINTS: Field = ("endpoints", {"type": "map", "values": STRING}, NO_DEFAULT)
SOME_CONFIG: Field = ("configId", STRING, NO_DEFAULT)
SOME_REPLICA: Field = ("originatorReplicaId", STRING, NO_DEFAULT)
VALUES = {"type": "map", "values": MAYBE_STRING}
CHANGES = {
    "type": "map",
    "values": {
        "type": "record",
        "name": "MetadataKeyUpdatedDto",
        "doc": "How the value of a key changed.",
        "fields": [
            {"name": "newValue", "type": MAYBE_STRING, "doc": "Value from now on."},
            {"name": "oldValue", "type": MAYBE_STRING, "doc": "Value before."},
        ],
    },
}
HEAD = [TRACE, TIMESTAMP, TIMEOUT_OR_NEVER]

KAA_2020_05: dict[str, tuple[str, str, list[Field]]] = {
    "connected": ("connectivity.ConnectedEvent", "cb26871c2811de6e", [*HEAD, ENDPOINTS, SOME_REPLICA]),
    "disconnected": ("connectivity.DisconnectedEvent", "201d87a8835c0541", [*HEAD, ENDPOINTS, SOME_REPLICA]),
    "registered": ("lifecycle.RegisteredEvent", "a0e0a51ff590e0f8", [*HEAD, VERSION, ENDPOINT, SOME_REPLICA]),
    "unregistered": ("lifecycle.UnregisteredEvent", "cee303caa843efff", [*HEAD, VERSION, ENDPOINT, SOME_REPLICA]),
    "app-version-updated": (
        "lifecycle.AppVersionUpdatedEvent",
        "0a05d793d8119853",
        [*HEAD, VERSION, ("previousAppVersionName", STRING, NO_DEFAULT), ENDPOINT, SOME_REPLICA],
    ),
    "metadata-updated": (
        "metadata.MetadataUpdatedEvent",
        "e24e568f61f7f2db",
        [
            *HEAD,
            VERSION,
            ENDPOINT,
            ("removed", VALUES, NO_DEFAULT),
            ("added", VALUES, NO_DEFAULT),
            ("updated", CHANGES, NO_DEFAULT),
            SOME_REPLICA,
        ],
    ),
    "config-updated": (
        "config.ConfigUpdated",
        "c349feed50899ba6",
        [
            *HEAD,
            VERSION,
            ENDPOINT,
            SOME_CONFIG,
            ("contentType", STRING, "application/json"),
            ("content", "bytes", NO_DEFAULT),
            REPLICA,
        ],
    ),
    "config-applied": (
        "config.ConfigApplied",
        "1ca8e9698fc6f8a1",
        [
            *HEAD,
            VERSION,
            ENDPOINT,
            SOME_CONFIG,
            REPLICA,
            ("statusCode", "int", 200),
            ("reasonPhrase", MAYBE_STRING, None),
        ],
    ),
}

PUBLISHED = {"kaa-2017-04": KAA_2017_04, "kaa-2020-05": KAA_2020_05}

each_schema = pytest.mark.parametrize(
    ("revision", "name"), [(revision, name) for revision, schemas in PUBLISHED.items() for name in schemas]
)


def load(revision: str, name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / revision / f"{name}.avsc").read_text(encoding="utf-8"))
    return schema


@pytest.mark.parametrize("revision", PUBLISHED)
def test_a_revision_reads_exactly_the_published_schemas(revision: str) -> None:
    read = {event_type.schema for event_type in REVISIONS[revision].event_types.values()}
    shipped = {path.stem for path in (SCHEMAS / revision).iterdir()}
    assert read == shipped == PUBLISHED[revision].keys()


@each_schema
def test_a_schema_has_the_fingerprint_of_the_published_one(revision: str, name: str) -> None:
    _, published, _ = PUBLISHED[revision][name]
    assert fingerprint(to_parsing_canonical_form(load(revision, name)), "CRC-64-AVRO") == published


@each_schema
def test_a_schema_has_the_fields_and_the_defaults_of_the_published_one(revision: str, name: str) -> None:
    # The canonical form omits the defaults, so the fingerprint does not cover them.
    record, _, fields = PUBLISHED[revision][name]
    schema = load(revision, name)
    assert f"{schema['namespace']}.{schema['name']}" == f"{NAMESPACE}.{record}"
    assert [(field["name"], field["type"], field.get("default", NO_DEFAULT)) for field in schema["fields"]] == fields


@each_schema
def test_every_record_and_every_field_is_documented(revision: str, name: str) -> None:
    schema = load(revision, name)
    assert not [part["name"] for part in (schema, *schema["fields"]) if not part.get("doc")]
