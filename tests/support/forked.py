"""Runs the command line in processes that are forked from one that has imported the whole program.

Most of the processor time of a short command is spent on imports.

What a forked command does not show is tested on commands that are executed:
its imports (tests/unit/test_startup.py), its output while it runs, and what signals do to it until it has ended.
"""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

import pytest

from projector.cli.main import main
from tests.support.patience import PATIENCE_S, be_patient

_PRELOADED = "tests.support.preloaded"
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([_PRELOADED])


class Ended(NamedTuple):
    """The result of a process."""

    code: int
    out: str
    err: str


async def run_forked(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> Ended:
    """Run a command to its end, in a folder and with no other environment variables."""
    out, child_out = _context.Pipe(duplex=False)
    err, child_err = _context.Pipe(duplex=False)
    with child_out, child_err:
        process = _context.Process(
            target=_run, args=(arguments, environment, folder, child_out, child_err), daemon=True
        )
        process.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            printed = await asyncio.gather(_read(out), _read(err))
            await _end(process)
    finally:
        process.kill()
    assert process.exitcode is not None
    return Ended(process.exitcode, *printed)


def _run(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, out: Connection, err: Connection
) -> None:
    """Run the program in this process."""
    os.dup2(out.fileno(), sys.stdout.fileno())
    os.dup2(err.fileno(), sys.stderr.fileno())
    assert _PRELOADED in sys.modules, "the fork server ignores a module that it cannot import"
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["projector", *arguments]
    be_patient(pytest.MonkeyPatch())
    main()


async def _read(pipe: Connection) -> str:
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), pipe
    )
    try:
        return (await stream.read()).decode()
    finally:
        transport.close()


async def _end(process: ForkServerProcess) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()
