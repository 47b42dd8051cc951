"""Runs the command line as a process.

Most of what a short command takes is the import of its libraries.
So the processes are forked from one that has imported everything, and nothing else:
the start of the program itself is tested where it matters, in tests/unit/test_startup.py and tests/wheel.
"""

import asyncio
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

from projector.cli.main import main
from projector.runtime import Projector
from projector.settings import load
from tests.support.patience import PATIENCE_S

_SIGNAL_EVERY_S = 0.001

_forked = multiprocessing.get_context("forkserver")
_forked.set_forkserver_preload(["tests.support.preloaded"])


class Ended(NamedTuple):
    """The result of a process."""

    code: int
    out: str
    err: str


class Running:
    """A process, and what it has logged so far."""

    def __init__(self, process: ForkServerProcess, out: Connection, err: Connection) -> None:
        self.logged: list[dict[str, Any]] = []
        self._process = process
        self._out: list[str] = []
        self._err: list[str] = []
        self._news = asyncio.Event()
        self._reading = asyncio.gather(self._read(out, self._out), self._read(err, self._err))
        self._reading.add_done_callback(lambda _: self._news.set())

    async def logs(self, event: str) -> None:
        """Return once an event is in the log."""
        await self._until(lambda: any(entry["event"] == event for entry in self.logged), event)

    async def prints(self, text: str) -> str:
        """Return the first line that has a text, once it is printed."""
        await self._until(lambda: any(text in line for line in self._out), text)
        return next(line for line in self._out if text in line)

    def send(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def insist(self, number: int) -> Ended:
        """Send a signal again and again until the end."""
        with suppress(ProcessLookupError):  # it has ended, and its output is still to be read
            while not self._reading.done():
                self.send(number)
                await asyncio.sleep(_SIGNAL_EVERY_S)
        return await self.end()

    async def end(self) -> Ended:
        """Wait for the end."""
        async with asyncio.timeout(PATIENCE_S):
            await self._reading
            await asyncio.to_thread(self._process.join)
        assert self._process.exitcode is not None
        return Ended(self._process.exitcode, "".join(self._out), "".join(self._err))

    async def kill(self) -> Ended:
        """Kill the process, as a power failure would."""
        if self._process.is_alive():
            self._process.kill()
        return await self.end()

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                if self._reading.done():
                    raise AssertionError(f"it ended without {what!r}: {self._out}, {self._err}")
                self._news.clear()
                await self._news.wait()

    async def _read(self, pipe: Connection, lines: list[str]) -> None:
        stream = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        async for line in stream:
            lines.append(line.decode())
            if line.startswith(b"{"):
                self.logged.append(json.loads(line))
            self._news.set()


def _run(
    arguments: tuple[str, ...], environment: Mapping[str, str], folder: Path, out: Connection, err: Connection
) -> None:
    """Be the program, in a process that was forked for it."""
    os.dup2(out.fileno(), sys.stdout.fileno())
    os.dup2(err.fileno(), sys.stderr.fileno())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if "PYTHONPATH" in environment:
        os.execve(sys.executable, (sys.executable, "-m", "projector", *arguments), os.environ)  # noqa: S606 - fixed
    sys.argv = ["projector", *arguments]
    main()


class CommandLine:
    """Runs `projector` in a folder of its own, with the settings of a test and no others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        nothing = folder / "nothing.toml"  # hides the settings that `projector dev` writes for this machine
        nothing.touch()
        hidden = ("PROJECTOR_", "PYTHONPATH")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self.environment["PROJECTOR_CONFIG"] = str(nothing)
        self.environment["PROJECTOR_HTTP"] = "off"  # the tests run in parallel and would share the port
        self.started: list[Running] = []

    async def start(self, *arguments: str, **settings: str | None) -> Running:
        """Start a command; settings are environment variables, None to unset one.

        With a PYTHONPATH among them, it is executed instead of forked.
        """
        environment = {name: value for name, value in (self.environment | settings).items() if value is not None}
        out, child_out = _forked.Pipe(duplex=False)
        err, child_err = _forked.Pipe(duplex=False)
        with child_out, child_err:
            process = _forked.Process(target=_run, args=(arguments, environment, self.folder, child_out, child_err))
            process.start()
        self.started.append(Running(process, out, err))
        return self.started[-1]

    async def __call__(self, *arguments: str, **settings: str | None) -> Ended:
        """Run a command to its end."""
        return await (await self.start(*arguments, **settings)).end()

    async def fold(self) -> None:
        """Do what `run --until-caught-up` does, but in this process: a test starts no command that it is not about."""
        settings = {
            name.removeprefix("PROJECTOR_").lower(): value
            for name, value in self.environment.items()
            if name.startswith("PROJECTOR_") and name != "PROJECTOR_CONFIG"
        }
        await Projector(load(settings, config=None, fallback=None)).run(until_caught_up=True)

    async def succeeds(self, *arguments: str, **settings: str | None) -> str:
        """Run a command that has to succeed, and return what it printed."""
        ended = await self(*arguments, **settings)
        assert ended.code == 0, ended
        return ended.out
