"""Runs the command line as a process.

A command that a test follows or sends signals to is executed, as a shell would.
One that a test only waits for is forked (see `forked`), which takes a quarter of the time.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from projector.runtime import Projector
from projector.settings import load
from tests.support.forked import Ended, run_forked
from tests.support.patience import PATIENCE_S

_SIGNAL_EVERY_S = 0.001


class Running:
    """A process, and what it has logged so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.logged: list[dict[str, Any]] = []
        self._process = process
        self._out: list[str] = []
        self._err: list[str] = []
        self._news = asyncio.Event()
        self._reading = asyncio.gather(self._read(process.stdout, self._out), self._read(process.stderr, self._err))
        self._reading.add_done_callback(lambda _: self._news.set())

    @property
    def has_ended(self) -> bool:
        return self._reading.done()

    async def logs(self, event: str) -> None:
        """Return once an event is in the log."""
        await self._until(lambda: any(entry["event"] == event for entry in self.logged), event)

    async def prints(self, text: str) -> str:
        """Return the first line that has a text, once it is printed."""
        await self._until(lambda: any(text in line for line in self._out), text)
        return next(line for line in self._out if text in line)

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)  # Popen's own method may take the exit code away from asyncio

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
            return Ended(await self._process.wait(), "".join(self._out), "".join(self._err))

    async def kill(self) -> Ended:
        """Kill the process, as a power failure would."""
        if self._process.returncode is None:
            self._process.kill()
        return await self.end()

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                if self._reading.done():
                    raise AssertionError(f"it ended without {what!r}: {self._out}, {self._err}")
                self._news.clear()
                await self._news.wait()

    async def _read(self, stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        assert stream is not None
        async for line in stream:
            lines.append(line.decode())
            if line.startswith(b"{"):
                self.logged.append(json.loads(line))
            self._news.set()


class CommandLine:
    """Runs `projector` in a folder of its own, with the settings of a test and no others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        nothing = folder / "nothing.toml"  # hides the settings that `projector dev` writes for this machine
        nothing.touch()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PROJECTOR_")}
        self.environment["PROJECTOR_CONFIG"] = str(nothing)
        self.environment["PROJECTOR_HTTP"] = "off"  # the tests run in parallel and would share the port
        self.started: list[Running] = []

    async def start(self, *arguments: str, **settings: str | None) -> Running:
        """Start a command; settings are environment variables, None to unset one."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "projector", *arguments),
            cwd=self.folder,
            env=self._with(settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        self.started.append(Running(process))
        return self.started[-1]

    async def __call__(self, *arguments: str, **settings: str | None) -> Ended:
        """Run a command to its end."""
        if "PYTHONPATH" in settings:  # it names other code than a forked process has imported
            return await (await self.start(*arguments, **settings)).end()
        return await run_forked(arguments, self._with(settings), self.folder)

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

    def _with(self, settings: Mapping[str, str | None]) -> dict[str, str]:
        return {name: value for name, value in {**self.environment, **settings}.items() if value is not None}
