"""How explanations are printed."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from projector.app.explanation import ExplainedColumn, ExplainedEvent, ExplainedKey, Explanation, Replayed
from projector.cli.explanations import notes, print_explanation

AT = datetime(2026, 11, 26, 1, 2, 3, tzinfo=UTC)
ORIGIN = {"event": "metadata.updated", "position": 7, "occurred_at": AT, "originator": "epr", "replica": "epr-1"}


def event(**fields: Any) -> ExplainedEvent:
    given: dict[str, Any] = {**ORIGIN, "facet": "metadata", "verdict": "applied", "reason": None, "before": None}
    return ExplainedEvent(**given | {"after": None} | fields)


FOUND = Explanation(
    endpoint_id="e\x1b1",
    columns={
        "app_version": ExplainedColumn(value=None),
        "config_available_id": ExplainedColumn(value=""),
        "metadata": ExplainedColumn(value={"a\x1b": Decimal("1.10")}, **ORIGIN),  # type: ignore[arg-type]
        "metadata_changed_at": ExplainedColumn(value=AT),
    },
    events=(),
    older=False,
    keys={},
    known_since=AT,
)


def rows(capsys: pytest.CaptureFixture[str], found: Explanation) -> list[list[str]]:
    """Return the cells of every row that is printed."""
    print_explanation(found)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]


def test_columns_are_printed_with_their_events(capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(capsys, FOUND)[1:] == [
        ["app_version", "", "", "", "", ""],
        ["config_available_id", '""', "", "", "", ""],
        ["metadata", '{"a\\u001b": 1.10}', "2026-11-26 01:02:03.000+00:00", "7", "metadata.updated", "epr/epr-1"],
        ["metadata_changed_at", "2026-11-26 01:02:03.000+00:00", "", "", "", ""],
    ]


def test_keys_are_printed_even_if_they_were_removed(capsys: pytest.CaptureFixture[str]) -> None:
    set_key = ExplainedKey(value="x", present=True, originator="epr")
    printed = rows(capsys, replace(FOUND, keys={"a": set_key, "b": ExplainedKey(value=None, present=False)}))
    assert printed[-2:] == [["a", "x", "", "", "", "epr (replica unknown)"], ["b", "(removed)", "", "", "", ""]]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "no column"),
        ({"after": {"app_version": "v1", "metadata_changed_at": "2026"}}, "app_version = v1"),
        ({"before": {"app_version": "v1"}, "after": {"app_version": None}}, "app_version: v1 -> null"),
        (
            {"before": {"metadata_changed_at": "1"}, "after": {"metadata_changed_at": "2"}},
            "metadata_changed_at: 1 -> 2",
        ),
        (
            {"before": {"metadata": {"a": 1, "b": 2}}, "after": {"metadata": {"a": 1, "c": 3}}},
            'metadata: {"b": 2} -> {"c": 3}',
        ),
        ({"verdict": "late", "reason": "late: another one is newer"}, "another one is newer"),
        (
            {"verdict": "corrected", "reason": "corrected: by a rebuild", "before": {"app_version": ""}},
            'by a rebuild: app_version was ""',
        ),
    ],
)
def test_an_event_is_printed_with_what_it_changed_or_why_not(
    capsys: pytest.CaptureFixture[str], fields: dict[str, Any], told: str
) -> None:
    assert rows(capsys, replace(FOUND, events=[event(**fields)]))[-1][-1] == told


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, "Changes have been recorded since 2026-11-26 01:02:03.000+00:00"),
        ({"older": True}, "There are more rows: see --events."),
        ({"known_since": None}, "Changes are not recorded"),
        ({"known_since": None, "is_permitted": False}, "The role may not read endpoint_change"),
        ({"unknown": "NATS is down"}, "The type or the origin of some events is unknown: NATS is down."),
        ({"unfounded": ["app_version"]}, "No event implies what is in app_version"),
        ({"replayed": Replayed(position=9, first=1, gone=0)}, "Read from the stream up to position 9."),
        ({"replayed": Replayed(position=9, first=4, gone=3)}, "The stream begins at position 4, and 3 of its messages"),
    ],
)
def test_what_is_not_known_is_a_sentence(changes: dict[str, Any], note: str) -> None:
    assert any(found.startswith(note) for found in notes(replace(FOUND, **changes)))
