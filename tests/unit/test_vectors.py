"""The vectors come from an independent encoder and model, so they check codec and domain together."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from projector.domain.endpoint import Endpoint, fold
from projector.domain.messages import Message, Skipped
from projector.storage.columns import ENDPOINT_COLUMNS, FACET_COLUMNS
from projector.storage.wire import encode_json
from projector.stream import subjects
from projector.stream.codec import Codec

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
REVISIONS = {
    "rules": "kaa-2017-04",
    "random": "kaa-2017-04",
    "today-rules": "kaa-2020-05",
    "today-random": "kaa-2020-05",
}
CODECS = {name: Codec(revision, ROOT / "schemas") for name, revision in REVISIONS.items()}

all_of_them = pytest.mark.parametrize("name", REVISIONS)


def lines(name: str) -> list[dict[str, Any]]:
    with (VECTORS / f"{name}.jsonl").open(encoding="utf-8") as file:  # `splitlines` also breaks at U+0085
        return [json.loads(line) for line in file]


def message(line: dict[str, Any]) -> Message:
    return Message(line["position"], line["stored_at"], line["subject"], bytes.fromhex(line["payload_hex"]))


def row(endpoint_id: str, endpoint: Endpoint) -> dict[str, Any]:
    """Return the columns that users rely on, as JSON values; times in Unix ms."""
    found: dict[str, Any] = {
        "endpoint_id": endpoint_id,
        "last_event_seq": endpoint.last_event_seq,
        "last_event_at": endpoint.last_event_at,
    }
    for facet, state in zip(FACET_COLUMNS, endpoint.states, strict=True):
        found |= zip((column.name for column in facet.columns), facet.values(state), strict=True)
    decoded: dict[str, Any] = json.loads(encode_json(found))
    return decoded


@all_of_them
def test_folding_the_vectors_gives_every_column_of_every_expected_row(name: str) -> None:
    endpoints: dict[str, Endpoint] = defaultdict(Endpoint.unseen)
    for line in lines(name):
        events = CODECS[name].decode(message(line))
        assert not isinstance(events, Skipped)
        fold(events, endpoints)
    expected = json.loads((VECTORS / f"{name}.expected.json").read_text(encoding="utf-8"))
    rows = {endpoint_id: row(endpoint_id, endpoint) for endpoint_id, endpoint in endpoints.items()}
    assert rows == {wanted["endpoint_id"]: wanted for wanted in expected}


@all_of_them
def test_the_expected_rows_have_every_column_but_the_registers(name: str) -> None:
    expected = json.loads((VECTORS / f"{name}.expected.json").read_text(encoding="utf-8"))
    ours = {column.name for column in ENDPOINT_COLUMNS} - {facet.registers.name for facet in FACET_COLUMNS}
    assert all(wanted.keys() == ours for wanted in expected)


@all_of_them
def test_the_codec_agrees_with_an_independent_avro_implementation_in_both_directions(name: str) -> None:
    codec = CODECS[name]
    for line in lines(name):
        subject = subjects.parse(line["subject"])
        assert subject is not None
        assert codec.explain(line["subject"], message(line).payload) == line["event"]
        record = line["event"]
        if "content" in record:
            record = record | {"content": record["content"].encode("latin-1")}
        assert codec.encode(subject.type, record).hex() == line["payload_hex"]
