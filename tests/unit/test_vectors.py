"""The vectors come from an independent encoder and an independent model, so they check this one as a whole."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from projector.domain.endpoint import Endpoint, fold
from projector.domain.messages import Message, Skipped
from projector.domain.stamps import Register, Stamp
from projector.stream import subjects
from projector.stream.codec import Codec

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
CODEC = Codec("kaa-2017-04", ROOT / "schemas")

both = pytest.mark.parametrize("name", ["rules", "random"])


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (VECTORS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def message(line: dict[str, Any]) -> Message:
    return Message(line["position"], line["stored_at"], line["subject"], bytes.fromhex(line["payload_hex"]))


def time(stamp: Stamp | None) -> int | None:
    return None if stamp is None else stamp.occurred_at


def value(register: Register[Any] | None) -> Any:
    return None if register is None else register.value


def changed_at(register: Register[Any] | None) -> int | None:
    return None if register is None else register.stamp.occurred_at


def row(endpoint_id: str, endpoint: Endpoint) -> dict[str, Any]:
    """Return the columns that users rely on."""
    connectivity, application, metadata, configuration = endpoint.states
    status, since = connectivity.rests_on
    holder = connectivity.connected
    return {
        "endpoint_id": endpoint_id,
        "connectivity_status": status,
        "connectivity_changed_at": time(since),
        "connected_at": time(holder),
        "disconnected_at": time(connectivity.disconnected),
        "connected_originator": holder and holder.originator,
        "connected_replica": holder and holder.replica,
        "app_version": value(application.version),
        "app_version_changed_at": changed_at(application.version),
        "previous_app_version": value(application.previous),
        "registered_at": time(application.registered),
        "metadata": metadata.values,
        "metadata_changed_at": time(metadata.changed),
        "config_status": configuration.status,
        "config_available_id": value(configuration.available),
        "config_available_at": changed_at(configuration.available),
        "config_applied_id": value(configuration.applied),
        "config_applied_at": changed_at(configuration.applied),
        "config_pending_id": configuration.pending_id,
        "last_event_seq": endpoint.last_event_seq,
        "last_event_at": endpoint.last_event_at,
    }


@both
def test_folding_the_vectors_gives_every_column_of_every_expected_row(name: str) -> None:
    endpoints: dict[str, Endpoint] = defaultdict(Endpoint.unseen)
    for line in lines(name):
        events = CODEC.decode(message(line))
        assert not isinstance(events, Skipped)
        fold(events, endpoints)
    expected = json.loads((VECTORS / f"{name}.expected.json").read_text(encoding="utf-8"))
    rows = {endpoint_id: row(endpoint_id, endpoint) for endpoint_id, endpoint in endpoints.items()}
    assert rows == {wanted["endpoint_id"]: wanted for wanted in expected}


@both
def test_the_codec_agrees_with_an_independent_avro_implementation_in_both_directions(name: str) -> None:
    for line in lines(name):
        subject = subjects.parse(line["subject"])
        assert subject is not None
        assert CODEC.explain(line["subject"], message(line).payload) == line["event"]
        assert CODEC.encode(subject.type, line["event"]).hex() == line["payload_hex"]
