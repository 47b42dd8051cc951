import json
from dataclasses import asdict, replace
from itertools import permutations
from typing import Any

import pytest

from projector.domain.rules import Rules
from projector.errors import RulesChangedError

RULES = Rules(version=1000, revision="kaa-2017-04", originators=("epr", "kpc"))


def test_rows_of_equal_rules_are_accepted() -> None:
    stored = json.loads(json.dumps(asdict(RULES)))
    RULES.check(Rules(**stored | {"originators": tuple(stored["originators"])}))


@pytest.mark.parametrize(
    ("field", "what", "undo", "values"),
    [
        ("version", "rules version", "return to the version", {1: 1, 2: 2}),
        (
            "revision",
            "protocol revision",
            "set PROJECTOR_REVISION",
            {"kaa-2017-04": "kaa-2017-04", "kaa-2020-05": "kaa-2020-05"},
        ),
        (
            "originators",
            "the events of originators",
            "set PROJECTOR_ORIGINATORS",
            {(): "(all)", ("kpc",): "kpc", ("epr", "kpc"): "epr, kpc"},
        ),
    ],
)
def test_rows_of_other_rules_are_refused_with_the_difference_and_both_remedies(
    field: str, what: str, undo: str, values: dict[Any, Any]
) -> None:
    for built_with, now in permutations(values, 2):
        with pytest.raises(RulesChangedError) as caught:
            replace(RULES, **{field: built_with}).check(replace(RULES, **{field: now}))
        error = caught.value
        assert (error.what, error.built_with, error.now) == (what, values[built_with], values[now])
        assert undo in str(error)
        assert "projector rebuild" in str(error)


@pytest.mark.parametrize(("version", "said"), [(0, True), (1, False)])
def test_rows_from_before_numbered_versions_are_described_as_such(version: int, said: bool) -> None:
    with pytest.raises(RulesChangedError) as caught:
        replace(RULES, version=version).check(RULES)
    assert ("from before versions were numbers" in str(caught.value)) is said
