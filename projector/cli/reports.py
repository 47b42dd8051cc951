"""Prints what commands found, as text or as JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from projector.cli import tables
from projector.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from projector.app.rebuild import Mention, Report
    from projector.app.status import Status
    from projector.doctor.examination import Examination


def print_report(report: Report, *, applied: bool, asked: str | None = None) -> None:
    """Print the number of rows compared, the differences by column, and the rows to show."""
    found = report.differences
    typer.echo(f"replayed {report.replayed} messages up to position {report.position}; compared {found.compared} rows")
    if report.clean:
        typer.echo("0 differences: the table is what the stream implies")
    else:
        total = found.missing + found.extra + found.different
        done = ("inserted", "deleted", "updated") if applied else ("missing", "extra", "different")
        typer.echo(
            f"{total} differences: {found.missing} rows {done[0]}, {found.extra} {done[1]}, {found.different} {done[2]}"
        )
        if found.by_column:
            tables.print_rows(("column", "rows"), list(found.by_column.items()))
    for row in found.shown:
        typer.echo(f"\nendpoint {visible(row.endpoint_id)} ({row.kind})")
        tables.print_rows(("column", "found", "implied"), [(name, *pair) for name, pair in row.columns.items()])
    if asked is not None and not report.mentions and not found.shown:
        typer.echo(f"no replayed message names endpoint {asked}, and its row does not differ")
    if report.mentions:
        typer.echo("\nmessages that name the endpoint")
        columns = tuple(_mention(report.mentions[0]))
        tables.print_rows(columns, [tuple(_mention(mention).values()) for mention in report.mentions])


def as_dict(report: Report) -> dict[str, Any]:
    """Return a report as an object for JSON."""
    found = report.differences
    return {
        "clean": report.clean,
        "replayed": report.replayed,
        "position": report.position,
        "compared": found.compared,
        "missing": found.missing,
        "extra": found.extra,
        "different": found.different,
        "by_column": dict(found.by_column),
        "rows": [
            {
                "endpoint_id": row.endpoint_id,
                "kind": row.kind,
                "columns": {name: {"found": pair[0], "implied": pair[1]} for name, pair in row.columns.items()},
            }
            for row in found.shown
        ],
        "messages": [_mention(mention) for mention in report.mentions],
    }


def print_status(status: Status) -> None:
    """Print the progress of the projection, and the leader."""
    shown = asdict(status)
    for counts in ("skipped", "dead_letters_by_reason"):
        shown[counts] = ", ".join(f"{kind} {count}" for kind, count in shown[counts].items()) or "none"
    shown["shards"] = _shards(shown["shards"])
    shown["publish"] = _publishing(shown["publish"])
    shown["changes_since"] = shown["changes_since"] or "not recorded"
    shown["active"] = leader(shown["active"])
    rebuild = shown["rebuild"]
    shown["rebuild"] = f"at position {rebuild['position']} of {rebuild['target']}" if rebuild else "none"
    tables.print_pairs(shown)


def _shards(shards: Sequence[Mapping[str, Any]]) -> str:
    """Return how far each of several shards is, and whether it has a leader; for one, the other lines say that."""
    if len(shards) <= 1:
        return "1"
    return "; ".join(
        f"{shard['shard']} at {shard['checkpoint_seq']}{'' if shard['active'] else ', no leader'}" for shard in shards
    )


def _publishing(publish: Mapping[str, Any] | None) -> str:
    """Return how far the changes are published, or why they are not."""
    if publish is None:
        return "off"
    parts = [f"to {publish['prefix']}.> in {publish['stream'] or 'no stream yet'}"]
    if publish["lag_commits"]:
        parts.append(f"{publish['lag_commits']} commits behind, {publish['lag_seconds']} s")
    if publish["lost_commits"]:
        parts.append(f"{publish['lost_commits']} commits lost")
    if publish["error"]:
        parts.append(f"waiting since {publish['error_since']}: {publish['error']}")
    return ", ".join(parts)


def leader(active: Mapping[str, Any] | None) -> str:
    """Return which projector leads, and since when."""
    return f"{active['application']} since {active['since'] or 'unknown'}" if active else "none"


def print_examination(examination: Examination) -> None:
    """Print the findings and their remedies, errors first, and what could not be inspected."""
    for finding in sorted(examination.findings, key=lambda finding: finding.severity):
        typer.echo(f"{finding.severity} {finding.name}: {visible(finding.what)}\n  {finding.remedy}")
    for unseen in examination.unseen:
        typer.echo(f"not seen: {visible(unseen)}")
    errors = sum(finding.severity == "error" for finding in examination.findings)
    typer.echo(f"errors: {errors}, warnings: {len(examination.findings) - errors}")


def _mention(mention: Mention) -> dict[str, Any]:
    event = mention.event
    stamp = event.stamp
    return {
        "position": stamp.position,
        "occurred_at": datetime.fromtimestamp(stamp.occurred_at / 1000, UTC),
        "subject": mention.message.subject,
        "replica": stamp.replica,
        "event": type(event).__name__,
        "says": {name: value for name, value in event._asdict().items() if name not in ("stamp", "endpoint_ids")},
    }
