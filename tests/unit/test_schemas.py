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
PUBLISHED: dict[str, tuple[str, str, list[Field]]] = {
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

each_schema = pytest.mark.parametrize("name", PUBLISHED)


def load(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / "kaa-2017-04" / f"{name}.avsc").read_text(encoding="utf-8"))
    return schema


def test_the_revision_reads_exactly_the_published_schemas() -> None:
    read = {event_type.schema for event_type in REVISIONS["kaa-2017-04"].event_types.values()}
    shipped = {path.stem for path in (SCHEMAS / "kaa-2017-04").iterdir()}
    assert read == shipped == PUBLISHED.keys()


@each_schema
def test_a_schema_has_the_fingerprint_of_the_published_one(name: str) -> None:
    _, published, _ = PUBLISHED[name]
    assert fingerprint(to_parsing_canonical_form(load(name)), "CRC-64-AVRO") == published


@each_schema
def test_a_schema_has_the_fields_and_the_defaults_of_the_published_one(name: str) -> None:
    # The canonical form leaves the defaults out, so the fingerprint does not vouch for them.
    record, _, fields = PUBLISHED[name]
    schema = load(name)
    assert f"{schema['namespace']}.{schema['name']}" == f"{NAMESPACE}.{record}"
    assert [(field["name"], field["type"], field.get("default", NO_DEFAULT)) for field in schema["fields"]] == fields


@each_schema
def test_every_record_and_every_field_is_documented(name: str) -> None:
    schema = load(name)
    assert not [part["name"] for part in (schema, *schema["fields"]) if not part.get("doc")]
