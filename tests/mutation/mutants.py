"""Mutation testing of the pure core: `python -m tests.mutation.mutants`, see docs/decisions/0016."""

import argparse
import compileall
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "build" / "mutants"
"""The copy that is mutated, and the sessions of Cosmic Ray, for `cr-html` and the like."""

_SESSIONS = Path(__file__).with_name("sessions.toml")
_EQUIVALENT = Path(__file__).with_name("equivalent.toml")
_COPIED = ("projector", "schemas", "tests", "pyproject.toml")


class Mutant(NamedTuple):
    """One change of the code; two are equal if they turn the same line of a definition into the same new line."""

    module: str
    definition: str
    """Function or class it is in; empty at the level of the module."""
    was: str
    becomes: str


class Outcome(NamedTuple):
    """What the tests made of a mutant."""

    mutant: Mutant
    operator: str
    line: int
    killed: bool


def main() -> int:
    """Print the score of each module and its survivors; return 1 if one is not listed as equivalent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", help="patterns of paths to mutate, all by default: '*/stamps.py'")
    patterns: list[str] = parser.parse_args().modules or ["*"]
    equivalent = _read_equivalent()
    _copy()
    outcomes: list[Outcome] = []
    plan = tomllib.loads(_SESSIONS.read_text(encoding="utf-8"))
    seen: set[str] = set()
    for name, session in plan["sessions"].items():
        modules = [module for module in _modules(session["modules"]) if module not in seen]
        seen.update(modules)
        if modules := [module for module in modules if any(fnmatch(module, pattern) for pattern in patterns)]:
            outcomes += _run(name, modules, session["tests"], plan["exclude_operators"])
    survivors = [outcome for outcome in outcomes if not outcome.killed]
    unexplained = [outcome for outcome in survivors if outcome.mutant not in equivalent]
    _print_survivors(survivors, equivalent)
    _print_scores(outcomes, equivalent)
    killed = {outcome.mutant for outcome in outcomes if outcome.killed}
    for mutant in sorted(killed & equivalent.keys()):
        _print(f"listed as equivalent, but killed: {mutant.module}: {mutant.was} -> {mutant.becomes}")
    _print(f"{len(unexplained)} survivors are not listed in {_EQUIVALENT.relative_to(ROOT)}")
    return 1 if unexplained else 0


def _read_equivalent() -> dict[Mutant, str]:
    """Return the mutants that no test can kill, and why."""
    listed = tomllib.loads(_EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]
    return {
        Mutant(entry["module"], entry["definition"], entry["was"], becomes): entry["because"]
        for entry in listed
        for becomes in entry["becomes"]
    }


def _copy() -> None:
    """Make the copy that Cosmic Ray mutates in place."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    for name in _COPIED:
        source, target = ROOT / name, OUTPUT / "tree" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    # Checked by content: a mutant can have the same size and time as the file it was made from.
    compileall.compile_dir(OUTPUT / "tree", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)


def _modules(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        found = sorted((ROOT / path).glob("*.py")) if (ROOT / path).is_dir() else [ROOT / path]
        yield from (str(module.relative_to(ROOT)) for module in found)


def _run(name: str, modules: Sequence[str], tests: Sequence[str], exclude_operators: Sequence[str]) -> list[Outcome]:
    """Run the tests against every mutant of these modules.

    Raises:
        CalledProcessError: a test fails without any mutant, or Cosmic Ray does.
    """
    config, session = f"../{name}.toml", f"../{name}.sqlite"
    (OUTPUT / f"{name}.toml").write_text(
        "[cosmic-ray]\n"
        f"module-path = {json.dumps(modules)}\n"
        "test-command = ''\n"  # `execute` runs the tests
        "timeout = 0.0\n"
        "excluded-modules = []\n"
        "distributor.name = 'local'\n"
        f"filters.operators-filter.exclude-operators = {json.dumps(exclude_operators)}\n",
        encoding="utf-8",
    )
    _tool("cosmic-ray", "init", config, session)
    _tool("cr-filter-operators", session, config)
    _print(f"{name}: {len(list(_items(session)))} mutants")
    _tool("python", "-m", "tests.mutation.execute", session, *tests)
    return [_outcome(mutation, result) for mutation, result in _items(session)]


def _items(session: str) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Return the mutations of a session that are not left out, and what came of each so far."""
    for line in _tool("cosmic-ray", "dump", session).splitlines():
        item, result = json.loads(line)
        if result is None or result["worker_outcome"] != "skipped":
            yield item["mutations"][0], result


def _outcome(mutation: dict[str, Any], result: dict[str, Any] | None) -> Outcome:
    diff = (result or {}).get("diff") or ""
    mutant = Mutant(
        mutation["module_path"], mutation["definition_name"] or "", _changed(diff, "-"), _changed(diff, "+")
    )
    killed = result is not None and result["test_outcome"] == "killed"
    return Outcome(mutant, mutation["operator_name"].removeprefix("core/"), mutation["start_pos"][0], killed)


def _changed(diff: str, sign: str) -> str:
    """Return the lines that a diff removes or adds, joined into one."""
    lines = (line[1:].strip() for line in diff.splitlines() if line.startswith(sign) and not line.startswith(sign * 3))
    return " ".join(line for line in lines if line)


def _tool(name: str, *arguments: str) -> str:
    """Run a tool of the environment in the copy, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(OUTPUT / "tree"), "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [str(Path(sys.executable).with_name(name)), *arguments],
        cwd=OUTPUT / "tree",
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _print_survivors(survivors: Sequence[Outcome], equivalent: dict[Mutant, str]) -> None:
    for mutant, operator, line, _ in sorted(survivors):
        _print(f"\n{mutant.module}:{line} {mutant.definition} ({operator})")
        _print(f"  - {mutant.was}\n  + {mutant.becomes}\n  {equivalent.get(mutant, 'SURVIVED')}")
    _print("")


def _print_scores(outcomes: Sequence[Outcome], equivalent: dict[Mutant, str]) -> None:
    """Print, for each module, how many of the mutants that are not equivalent were killed."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        what = "killed" if outcome.killed else "equivalent" if outcome.mutant in equivalent else "survived"
        for name in (outcome.mutant.module, "all"):
            counts.setdefault(name, Counter())[what] += 1
    _print(f"{'module':<36} mutants  killed  equivalent  survived    score")
    for name, count in sorted(counts.items(), key=lambda item: (item[0] == "all", item)):
        score = count["killed"] / max(1, count["killed"] + count["survived"])
        figures = f"{count.total():>7}  {count['killed']:>6}  {count['equivalent']:>10}  {count['survived']:>8}"
        _print(f"{name:<36} {figures}  {score:>7.1%}")


if __name__ == "__main__":
    sys.exit(main())
