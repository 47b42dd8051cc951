"""The results as Markdown, and as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from benchmarks.plan import Plan
from benchmarks.results import Case, Claim, Results, Spread

_TITLES = {
    "limits": "Limits: each part alone",
    "ours": "Ours",
    "monitoring": "What monitoring costs",
    "changes": "What the log of changes costs",
    "shards": "Shards and processes",
    "peers": "What people do today",
    "revisions": "Revisions of the protocol",
    "foreign": "Among messages of other protocols",
    "growth": "Growth",
    "poison": "Messages that cannot be folded",
    "latency": "Latency",
}
_COLUMNS = (
    ("per second", "per_second"),
    ("seconds", "seconds"),
    ("with start-up", "seconds_with_start_up"),
    ("resident MB", "peak_mb"),
    ("CPU s per million: process", "process_cpu_s_per_million"),
    ("Postgres", "postgres_cpu_s_per_million"),
    ("NATS", "nats_cpu_s_per_million"),
    ("others' cores", "foreign_cores"),
)
_LATENCY_COLUMNS = (("p50 ms", "p50_ms"), ("p99 ms", "p99_ms"), ("highest ms", "max_ms"), ("resident MB", "peak_mb"))
_PRECISE_BELOW = 100


def as_markdown(results: Results, found: Iterable[Claim], environment: Mapping[str, Any], plan: Plan) -> str:
    """Return everything that a person wants to read; medians, with the lowest and the highest in brackets."""
    sections = ["# Benchmark results", _circumstances(environment, plan)]
    rows = [_claim_row(claim) for claim in found]
    if rows:
        sections.append(_table("Targets", ("figure", "measured", "wanted", "goal", "met"), rows))
    for part, cases in groupby(results.samples, key=lambda case: case.part):
        columns = _LATENCY_COLUMNS if part == "latency" else _COLUMNS
        sections.append(
            _table(
                _TITLES[part],
                ("case", *(title for title, _ in columns)),
                [_case_row(results, case, [name for _, name in columns]) for case in cases],
            )
        )
    return "\n\n".join(sections) + "\n"


def as_json(results: Results, found: Iterable[Claim], environment: Mapping[str, Any], plan: Plan) -> str:
    """Return everything that was measured."""
    document = {
        "environment": environment,
        "plan": asdict(plan),
        "claims": [{**asdict(claim), "found": claim.found._asdict(), "kept": claim.kept} for claim in found],
        "cases": [
            {
                "part": case.part,
                "name": case.name,
                "figures": {name: spread._asdict() for name, spread in results.of(case).items()},
                "samples": samples,
            }
            for case, samples in results.samples.items()
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _circumstances(environment: Mapping[str, Any], plan: Plan) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in environment["packages"].items() if number)
    return (
        f"{environment['at']}, {plan.rounds} rounds, medians (lowest to highest). "
        f"{plan.backlog:,} events of {plan.endpoints:,} endpoints, "
        f"each endpoint folded {plan.preload} times before.\n"
        f"{environment['processor']}, {environment['cores']} cores, {environment['memory_gb']} GB, "
        f"{environment['system']}, {environment['python']}, NATS {environment.get('nats')}, "
        f"Postgres {environment.get('postgres')}, {versions}.\n"
        f"Load average before: {environment['load_average_before']:.2f}; "
        "“others' cores” is how many cores other programs kept busy meanwhile."
    )


def _case_row(results: Results, case: Case, names: Sequence[str]) -> list[str]:
    figures = results.of(case)
    return [case.name, *(_spread(figures[name]) if name in figures else "" for name in names)]


def _claim_row(claim: Claim) -> list[str]:
    bound = "≤" if claim.at_most else "≥"
    return [
        claim.name,
        _spread(claim.found),
        "" if claim.wanted is None else f"{bound} {claim.wanted:g}",
        "" if claim.goal is None else f"{bound} {claim.goal:g}",
        {True: "yes", False: "no", None: ""}[claim.kept],
    ]


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, ["-" * width for width in widths], *rows)
    ]
    return "\n".join((f"## {title}", "", *lines))


def _spread(spread: Spread) -> str:
    if spread.low == spread.high:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)})"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < _PRECISE_BELOW else f"{value:,.0f}"
