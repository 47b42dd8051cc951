"""Reading a message of the stream, the way an application does: by subject, with fastavro, into a dictionary."""

import json
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, NamedTuple

import fastavro
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from benchmarks.program import Task
from projector import resources

SUBJECT = "kaa.v1.events.*.endpoint.>"

_SCHEMA_FILES = {
    "connectivity.connected": "connected",
    "connectivity.disconnected": "disconnected",
    "lifecycle.registered": "registered",
    "lifecycle.appversion-updated": "app-version-updated",
    "metadata.updated": "metadata-updated",
    "config.new-available": "new-config-available",
    "config.updated": "config-updated",
}
_SCHEMAS = {
    event_type: fastavro.parse_schema(
        json.loads((resources.folder("schemas") / "kaa-2017-04" / f"{name}.avsc").read_text())
    )
    for event_type, name in _SCHEMA_FILES.items()
}


class Received(NamedTuple):
    """One message."""

    type: str
    originator: str
    endpoint_ids: list[str]
    record: dict[str, Any]
    at: datetime
    seq: int


def read(message: Msg) -> Received:
    """Decode a message."""
    _, _, _, originator, _, event_type = message.subject.split(".", 5)
    record: Any = fastavro.schemaless_reader(BytesIO(message.data), _SCHEMAS[event_type], None)
    return Received(
        event_type,
        originator,
        record["endpointIds"] if event_type == "connectivity.disconnected" else [record["endpointId"]],
        record,
        datetime.fromtimestamp(record["timestamp"] / 1000, UTC),
        message.metadata.sequence.stream,
    )


def consumer(task: Task) -> ConsumerConfig:
    """Return the durable consumer to work with: the defaults, except for where it begins."""
    return ConsumerConfig(
        durable_name=task.consumer, deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=task.after + 1
    )
