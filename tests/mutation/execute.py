"""Test the mutants of a session in the copy: `python -m tests.mutation.execute SESSION TEST...`.

This process imports pytest and whatever else the tests need from other packages.
A process forked from it tests one mutant, so no mutant costs the start of an interpreter.
"""

import contextlib
import difflib
import gc
import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

_OPTIONS = (
    "-x",
    "-q",
    "--assert=plain",
    "--noconftest",
    "-pno:cacheprovider",
    "-ptests.mutation.hypothesis_profile",
)
_MUTATED = ("projector", "tests")
"""Packages of the copy: each process imports them anew."""

_MIN_TIMEOUT_S = 15
_MAX_SLOWDOWN = 5
"""A mutant may take this much longer than no mutant."""


class Run(NamedTuple):
    """What the tests said."""

    passed: bool
    output: str
    imported: Sequence[str]
    """Modules that were imported, unless a signal ended the process."""


def main() -> int:
    """Record the outcome of every pending mutant; return 1 if the tests fail without one."""
    session, *tests = sys.argv[1:]
    sys.dont_write_bytecode = True
    _import(_run(tests, "--collect-only").imported)
    gc.freeze()  # pytest collects garbage several times
    began = time.monotonic()
    without_mutant = _run(tests)
    if not without_mutant.passed:
        sys.stderr.write(without_mutant.output)
        return 1
    timeout_s = _MIN_TIMEOUT_S + int(_MAX_SLOWDOWN * (time.monotonic() - began))
    with use_db(session, WorkDB.Mode.open) as work:
        for item in work.pending_work_items:
            (mutation,) = item.mutations
            work.set_result(item.job_id, _result(mutation, tests, timeout_s))
    return 0


def _import(names: Sequence[str]) -> None:
    """Import the modules of other packages; those that exist only once another one has run are left out."""
    for name in names:
        if name.partition(".")[0] not in _MUTATED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def _result(mutation: MutationSpec, tests: Sequence[str], timeout_s: int) -> WorkResult:
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    with use_mutation(mutation.module_path, operator, mutation.occurrence) as (was, becomes):
        run = _run(tests, timeout_s=timeout_s)
    return WorkResult(
        worker_outcome=WorkerOutcome.NORMAL,
        output=run.output,
        test_outcome=TestOutcome.SURVIVED if run.passed else TestOutcome.KILLED,
        diff="\n".join(difflib.unified_diff(was.splitlines(), becomes.splitlines(), lineterm="")),
    )


def _run(tests: Sequence[str], *options: str, timeout_s: int = 0) -> Run:
    """Run the tests in a process of their own; 0 seconds mean no limit."""
    with tempfile.TemporaryDirectory() as folder:
        output, imported = Path(folder, "output"), Path(folder, "imported")
        child = os.fork()
        if child == 0:
            signal.alarm(timeout_s)  # ends the process even in an endless loop
            status = 1
            try:
                status = _test(tests, options, output, imported)
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        names = imported.read_text(encoding="utf-8").split() if imported.exists() else ()
        return Run(ended == 0, output.read_text(encoding="utf-8", errors="replace"), names)


def _test(tests: Sequence[str], options: Sequence[str], output: Path, imported: Path) -> int:
    with output.open("wb") as written:
        os.dup2(written.fileno(), sys.stdout.fileno())
        os.dup2(written.fileno(), sys.stderr.fileno())
    for name in [name for name in sys.modules if name.partition(".")[0] in _MUTATED]:
        del sys.modules[name]
    status = 0
    for test in tests:  # one after the other: most mutants need only the first to be imported
        status = status or int(pytest.main([*_OPTIONS, *options, test]))
    sys.stdout.flush()
    imported.write_text("\n".join(sys.modules), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
