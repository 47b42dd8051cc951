"""The command line of the suite: `python -m benchmarks`, or `make bench`."""

import argparse
import os
import signal
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from benchmarks import environment, picture, report
from benchmarks.parts import Parts
from benchmarks.plan import PARTS, QUICK, Plan
from benchmarks.process import ProgramError
from benchmarks.results import Results, claims
from benchmarks.servers import Nats, Servers, ask

_RESULTS = Path(__file__).parent / "results"

# Short enough for a socket, and open to the user that Postgres becomes under root.
_PARENT = Path("/tmp")  # noqa: S108 - the folder in it is made by tempfile


def main() -> None:
    """Measure, print, and write the results."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the servers are ended on the way out
    options = _options()
    plan = _plan(options)
    output: Path | None = options.output or (None if options.quick else _RESULTS)
    results = Results()
    facts = environment.describe()
    with (
        tempfile.TemporaryDirectory(prefix="pr-bench-", dir=options.parent) as folder,
        Servers(Path(folder)) as servers,
    ):
        facts["postgres"] = ask(servers.url, "SHOW server_version")
        with Nats(Path(folder) / "any") as nats:
            facts["nats"] = environment.nats_version(nats.url)
        failure: ProgramError | None = None
        try:
            _measure(Parts(servers, plan), plan, results)
        except ProgramError as error:
            failure = error
    facts["load_average_after"] = os.getloadavg()[0]
    found = claims(results, plan.growth_endpoints)
    text = report.as_markdown(results, found, facts, plan)
    print(text)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.md").write_text(text, encoding="utf-8")
        (output / "results.json").write_text(report.as_json(results, found, facts, plan), encoding="utf-8")
        picture.draw(results, output / "results.svg")
        print(f"written to {output}", file=sys.stderr)
    if failure is not None:
        sys.exit(f"error: {failure}")


def _measure(parts: Parts, plan: Plan, results: Results) -> None:
    """Run the rounds, the parts taking turns; what changes the stream comes when nothing else needs it."""
    last = [part for part in plan.parts if part == "latency"]
    alternating = [part for part in plan.parts if part not in last]
    for turn in (alternating, last):
        for number in range(1, plan.rounds + 1):
            for part in turn:
                for case, sample in getattr(parts, part)():
                    results.add(case, sample)
                    name, value = next(iter(sample.items()))
                    print(
                        f"round {number} of {plan.rounds}, {case.part}, {case.name}: {value:,.1f} {name}",
                        file=sys.stderr,
                    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--output", type=Path, help="folder for the results; by default, --quick writes none")
    parser.add_argument("--parent", type=Path, default=_PARENT, help="folder for the servers' data while it lasts")
    for field in fields(Plan):
        if field.name not in ("parts", "shards"):
            default: Any = field.default
            several = isinstance(default, tuple)
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=int,
                nargs="+" if several else None,
                help=f"default {' '.join(map(str, default)) if several else default}",
            )
    return parser.parse_args()


def _plan(options: argparse.Namespace) -> Plan:
    """Return the sizes, with those given by flags."""
    changes: dict[str, Any] = {}
    for field in fields(Plan):
        value = getattr(options, field.name, None)
        if value is not None:
            changes[field.name] = tuple(value) if isinstance(value, list) else value
    changes["parts"] = tuple(part for part in PARTS if part in (options.only or PARTS))
    return replace(QUICK if options.quick else Plan(), **changes)


if __name__ == "__main__":
    main()
