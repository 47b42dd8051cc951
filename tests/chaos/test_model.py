"""The reference of the chaos runs: checked on the vectors, which neither side wrote, and against the projector."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from projector import resources
from projector.domain.messages import Message
from projector.stream.codec import Codec
from projector.stream.protocol import REVISIONS
from tests.chaos.model import Model
from tests.chaos.reference import Tables, differences, independent_fold, plain_fold
from tests.chaos.traffic import Traffic

VECTORS = Path(__file__).parents[1] / "vectors"
T = 1_700_000_000_000


def as_floats(rows: dict[str, Any]) -> Any:
    """Return rows with numbers as precise as the vectors have them."""
    return json.loads(json.dumps(rows, default=float), parse_int=float)


@pytest.mark.parametrize("name", ["rules", "random", "today-rules", "today-random"])
def test_the_model_agrees_with_every_expected_row_of_the_vectors(name: str) -> None:
    model = Model("kaa-2020-05" if name.startswith("today") else "kaa-2017-04")
    with (VECTORS / f"{name}.jsonl").open(encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            model.fold(line["position"], line["stored_at"], line["subject"], bytes.fromhex(line["payload_hex"]))
    expected = json.loads((VECTORS / f"{name}.expected.json").read_text(encoding="utf-8"))
    assert as_floats(model.rows()) == as_floats({row["endpoint_id"]: row for row in expected})
    assert not model.dead_letters
    assert not model.skipped


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("seed", range(5))
def test_projector_agrees_with_the_model_on_hostile_traffic(seed: int, revision: str) -> None:
    codec = Codec(revision, resources.folder("schemas"))
    traffic = Traffic(Random(seed), codec, now_ms=T)  # noqa: S311 - traffic that can be repeated is the point
    messages = [
        Message(position, T + 3 * position, subject, payload)
        for position, (subject, payload) in enumerate(traffic.take(3000), 1)
    ]
    expected = independent_fold(revision, messages, {})
    assert differences(expected, plain_fold(codec, messages, {})) == []
    assert expected.dead_letters
    assert expected.skipped


def test_every_kind_of_difference_is_found() -> None:
    expected = Tables({"e": {"a": 1}, "f": {"a": 1}}, {}, {"x.y": 1}, 3)
    found = Tables({"e": {"a": 2, "more": 0}, "g": {"a": 1}}, {7: {"reason": "x"}}, {}, 2)
    assert sorted(differences(expected, found)) == [
        "checkpoint is 2, not 3",
        "dead_letter 7 should not be there",
        "endpoint_state 'e' has a: 2, not 1",
        "endpoint_state 'f' is missing",
        "endpoint_state 'g' should not be there",
        "skipped is {}, not {'x.y': 1}",
    ]
