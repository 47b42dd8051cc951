"""The columns, compared with the vectors, whose rows come from an independent model."""

import json
import runpy
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateColumn

from projector.domain import connectivity
from projector.domain import endpoint as domain
from projector.domain.endpoint import FACETS, Endpoint, fold
from projector.domain.messages import Message, Skipped
from projector.storage import columns
from projector.storage.columns import ENDPOINT_COLUMNS, ENDPOINT_ID, FACET_COLUMNS, LAST_EVENT
from projector.storage.tables import endpoint_state
from projector.stream.codec import Codec

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
CODEC = Codec("kaa-2017-04", ROOT / "schemas")


def queried(endpoint: Endpoint) -> dict[str, Any]:
    """Return the columns that users query, except those of the last event, for these states."""
    found: dict[str, Any] = {}
    for facet, state in zip(FACET_COLUMNS, endpoint.states, strict=True):
        found |= zip((column.name for column in facet.columns), facet.values(state), strict=True)
    return found


@pytest.mark.parametrize("name", ["rules", "random"])
def test_the_columns_of_the_vectors_are_those_of_the_expected_rows(name: str) -> None:
    endpoints: dict[str, Endpoint] = defaultdict(Endpoint.unseen)
    for line in (VECTORS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        sent = json.loads(line)
        message = Message(sent["position"], sent["stored_at"], sent["subject"], bytes.fromhex(sent["payload_hex"]))
        events = CODEC.decode(message)
        assert not isinstance(events, Skipped)
        fold(events, endpoints)
    expected = json.loads((VECTORS / f"{name}.expected.json").read_text(encoding="utf-8"))
    for row in expected:
        found = queried(endpoints.pop(row["endpoint_id"]))
        assert found == {column: row[column] for column in found}
        assert row.keys() - found.keys() == {ENDPOINT_ID.name, *(column.name for column in LAST_EVENT)}
    assert not endpoints


def test_registers_are_the_last_column_of_a_facet() -> None:
    for facet in FACET_COLUMNS:
        assert [column.name for column in facet.all_columns] == [
            *(column.name for column in facet.columns),
            f"{facet.facet.name}_registers",
        ]


def test_endpoint_without_events_has_the_default_in_every_column() -> None:
    defaults = {
        "connectivity_status": "unknown",
        "registration_status": "unknown",
        "metadata": {},
        "config_status": "none",
    }
    found = queried(Endpoint.unseen())
    assert found == dict.fromkeys(found) | defaults


def test_every_column_has_the_type_and_the_default_that_queries_rely_on() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    every = endpoint_state.columns
    declared = dict(str(CreateColumn(column).compile(dialect=dialect)).split(" ", 1) for column in every)
    time = "TIMESTAMP WITH TIME ZONE"
    assert declared == {
        "endpoint_id": "TEXT NOT NULL",
        "connectivity_status": "TEXT DEFAULT 'unknown' NOT NULL",
        "connectivity_changed_at": time,
        "connected_at": time,
        "disconnected_at": time,
        "connected_originator": "TEXT",
        "connected_replica": "TEXT",
        "connectivity_registers": "TEXT",
        "app_version": "TEXT",
        "app_version_changed_at": time,
        "previous_app_version": "TEXT",
        "application_registers": "TEXT",
        "registration_status": "TEXT DEFAULT 'unknown' NOT NULL",
        "registered_at": time,
        "unregistered_at": time,
        "registration_registers": "TEXT",
        "metadata": "JSONB DEFAULT '{}'::jsonb NOT NULL",
        "metadata_changed_at": time,
        "metadata_registers": "TEXT",
        "config_status": "TEXT DEFAULT 'none' NOT NULL",
        "config_available_id": "TEXT",
        "config_available_at": time,
        "config_applied_id": "TEXT",
        "config_applied_at": time,
        "config_pending_id": "TEXT",
        "config_failed_id": "TEXT",
        "config_failed_at": time,
        "config_failure_code": "INTEGER",
        "config_failure_reason": "TEXT",
        "configuration_registers": "TEXT",
        "last_event_seq": "BIGINT NOT NULL",
        "last_event_at": f"{time} NOT NULL",
    }
    assert [column.name for column in every if column.primary_key] == ["endpoint_id"]


def test_columns_that_were_added_to_existing_tables_come_last_in_the_order_of_their_addition() -> None:
    names = [column.name for column in ENDPOINT_COLUMNS]
    assert names[:3] == ["endpoint_id", "connectivity_status", "connectivity_changed_at"]
    assert names[-9:] == [
        "metadata_registers",
        "configuration_registers",
        "registration_status",
        "unregistered_at",
        "registration_registers",
        "config_failed_id",
        "config_failed_at",
        "config_failure_code",
        "config_failure_reason",
    ]


@pytest.mark.parametrize("name", ["a_column", "z_column"])
def test_a_column_that_its_facet_does_not_name_is_an_error_at_import(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = FACETS
    changed = replace(first, columns=(name, *first.columns[1:]))
    monkeypatch.setattr(connectivity, "FACET", changed)
    monkeypatch.setattr(domain, "FACETS", (changed, *others))
    with pytest.raises(AssertionError, match="in the same order"):
        runpy.run_path(str(columns.__file__))


def test_columns_that_do_not_match_the_facets_in_their_order_are_an_error_at_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(domain, "FACETS", FACETS[::-1])
    with pytest.raises(AssertionError, match="in the same order"):
        runpy.run_path(str(columns.__file__))
