"""The rules version is incremented whenever the rules give another result on a large corpus."""

from functools import cache
from typing import Any, get_args

import pytest

from projector.domain import configuration, connectivity, registration
from projector.domain.endpoint import EVENT_TYPES, FACETS
from projector.domain.events import ConfigFailed, Disconnected, Unregistered
from projector.domain.facets import Verdict
from projector.domain.rules import RULES_VERSION
from projector.stream import limits
from projector.stream.protocol import REVISIONS
from tests.support import golden_rules
from tests.support.corpus import CORPORA

result = cache(golden_rules.result)


def test_every_revision_has_a_corpus() -> None:
    assert CORPORA.keys() == REVISIONS.keys()


@pytest.mark.parametrize("revision", CORPORA)
def test_result_of_the_corpus_changes_only_with_the_rules_version(revision: str) -> None:
    now = golden_rules.golden(revision, result(revision))
    on_record = [one for one in golden_rules.recorded() if (one.version, one.revision) == (now.version, revision)]
    assert on_record, f"version {RULES_VERSION} of the rules is new: record it with `{golden_rules.COMMAND}`"
    (before,) = on_record
    assert before.corpus == now.corpus, f"the corpus changed: record it with `{golden_rules.COMMAND}`"
    assert not before.changed(now), (
        f"the rules make other {', '.join(before.changed(now))} of the corpus: if that is intended, "
        f"raise RULES_VERSION in projector/domain/rules.py and record it with `{golden_rules.COMMAND}`"
    )


NOT_STATED: dict[str, set[type[Any]]] = {"kaa-2017-04": {Unregistered, ConfigFailed}, "kaa-2020-05": set()}


@pytest.mark.parametrize("revision", CORPORA)
def test_corpus_covers_every_verdict(revision: str) -> None:
    stated = EVENT_TYPES - NOT_STATED[revision]
    expected = {(kind, verdict) for kind in stated for verdict in (Verdict.APPLIED, Verdict.LATE)}
    assert result(revision).verdicts.keys() == expected | {(Disconnected, Verdict.FENCED)}


@pytest.mark.parametrize(("revision", "more"), [("kaa-2017-04", set()), ("kaa-2020-05", {"unstorable-json"})])
def test_corpus_covers_every_poison_reason_and_unknown_types(revision: str, more: set[str]) -> None:
    found = result(revision)
    assert {reason for _, reason in found.parked} == more | {
        "malformed-payload",
        "trailing-bytes",
        "empty-endpoint-id",
        "endpoint-id-too-long",
        "unstorable-text",
    }
    assert len(found.skipped) > 3


def test_corpus_covers_every_status() -> None:
    states = [endpoint.states for endpoint in result("kaa-2020-05").endpoints.values()]
    assert {state[FACETS.index(configuration.FACET)].status for state in states} == set(get_args(configuration.Status))
    assert {state[FACETS.index(registration.FACET)].status for state in states} == set(get_args(registration.Status))
    assert {state[FACETS.index(connectivity.FACET)].rests_on[0] for state in states} == set(
        get_args(connectivity.Status)
    )


@pytest.mark.parametrize("revision", CORPORA)
def test_the_corpus_sets_each_endpoint_many_times_and_leaves_some_alone(revision: str) -> None:
    found = result(revision)
    assert len(found.endpoints) > 250
    assert sum(found.verdicts.values()) > 15_000


def test_recorded_version_is_not_overwritten_for_other_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    before = golden_rules.RECORD.read_bytes()
    monkeypatch.setattr(limits, "MAX_ENDPOINT_ID_BYTES", 2000)
    refusal = golden_rules.record()
    assert refusal is not None
    assert "parked" in refusal
    assert golden_rules.RECORD.read_bytes() == before
