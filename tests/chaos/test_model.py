"""The reference of the chaos runs is right where it can be checked: on the vectors, which neither side wrote."""

import json
from pathlib import Path

import pytest
from model import Model

VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.mark.parametrize("name", ["rules", "random"])
def test_the_model_agrees_with_every_expected_row_of_the_vectors(name: str) -> None:
    model = Model()
    for text in (VECTORS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        model.fold(line["position"], line["stored_at"], line["subject"], bytes.fromhex(line["payload_hex"]))
    expected = json.loads((VECTORS / f"{name}.expected.json").read_text(encoding="utf-8"))
    assert model.rows() == {row["endpoint_id"]: row for row in expected}
    assert not model.dead_letters
    assert not model.skipped
