"""Prints an explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from projector.cli import tables
from projector.domain.json_text import write_json
from projector.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from projector.app.explanation import ExplainedColumn, ExplainedEvent, Explanation

_BEHIND = ("occurred_at", "position", "event", "origin")


def print_explanation(found: Explanation) -> None:
    """Print the columns, the metadata keys and the events, each as a table, and what is not known."""
    typer.echo(f"endpoint {visible(found.endpoint_id)}")
    columns = [(name, _plain(column.value), *_behind(column)) for name, column in found.columns.items()]
    tables.print_rows(("column", "value", *_BEHIND), columns)
    if found.keys:
        typer.echo("\nmetadata keys")
        keys = [
            (name, _plain(key.value) if key.present else "(removed)", *_behind(key)) for name, key in found.keys.items()
        ]
        tables.print_rows(("key", "value", *_BEHIND), keys)
    if found.events:
        typer.echo("\nlatest events, newest first")
        events = [
            (*_behind(event), event.facet, event.verdict, _outcome(event, [*found.columns])) for event in found.events
        ]
        tables.print_rows((*_BEHIND, "facet", "verdict", "what it changed, or why not"), events)
    for note in notes(found):
        typer.echo(note)


def notes(found: Explanation) -> Iterator[str]:
    """Yield what the answer does not cover, a sentence each."""
    if found.older:
        yield "There are more rows: see --events."
    if found.unfounded:
        yield (
            f"No event implies what is in {', '.join(found.unfounded)}: another program wrote it, "
            "and `projector rebuild` restores it."
        )
    if found.unknown:
        yield f"The type or the origin of some events is unknown: {visible(found.unknown)}."
    if found.replayed is not None:
        yield f"Read from the stream up to position {found.replayed.position}."
        if found.replayed.gone:
            yield (
                f"The stream begins at position {found.replayed.first}, and {found.replayed.gone} of its messages "
                "are gone: what they said of the endpoint is missing here."
            )
    elif not found.is_permitted:
        yield (
            "The role may not read endpoint_change, so the events are not known: "
            "grant the privileges that docs/how-to/connect.md lists, or read the stream with --replay."
        )
    elif found.known_since is None:
        yield (
            "Changes are not recorded, so the events are not known: set PROJECTOR_CHANGES, such as 7d, "
            "or read the stream with --replay."
        )
    else:
        since = found.known_since.isoformat(sep=" ", timespec="milliseconds")
        yield f"Changes have been recorded since {since}; --replay reads the stream from its beginning."


def _behind(explained: ExplainedColumn | ExplainedEvent) -> tuple[Any, ...]:
    origin = explained.originator
    if origin is not None:
        origin = f"{origin}/{explained.replica}" if explained.replica else f"{origin} (replica unknown)"
    return explained.occurred_at, explained.position, explained.event, origin


def _outcome(event: ExplainedEvent, order: Sequence[str]) -> str:
    """Return why an event changed nothing, or what it changed."""
    changed = "; ".join(_changes(event.before, event.after, order))
    if event.reason is None:
        return changed or "no column"
    reason = event.reason.removeprefix(f"{event.verdict}: ")
    return f"{reason}: {changed}" if changed else reason


def _changes(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, order: Sequence[str]) -> Iterator[str]:
    """Yield each column that changed; times only where nothing else did."""
    names = [name for name in order if name in (after or before or {})]
    for name in [name for name in names if not name.endswith("_at")] or names:
        was, now = (before or {}).get(name), (after or {}).get(name)
        if isinstance(was, dict) and isinstance(now, dict):  # only the keys that changed
            was, now = _without_same(was, now), _without_same(now, was)
        if before is None:
            yield f"{name} = {_text(now)}"
        elif after is None:
            yield f"{name} was {_text(was)}"
        else:
            yield f"{name}: {_text(was)} -> {_text(now)}"


def _without_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key not in other or value != other[key]}


def _plain(value: Any) -> Any:
    return write_json(value, ascii_only=False) if isinstance(value, dict | list) or value == "" else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else write_json(value, ascii_only=False)
