"""The workers of `projector run --workers`: processes that report to the one that started them."""

import asyncio
import pickle
import struct
import sys
from dataclasses import dataclass
from typing import Any

from projector.app.observers import Observer
from projector.settings import Settings

_MODULE = "projector.cli.worker_process"
_END_S = 5.0
_LENGTH = struct.Struct("!I")
LENGTH_BYTES = _LENGTH.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a worker is to do."""

    settings: Settings
    until_caught_up: bool
    accept_gap: bool
    verbose: bool


def framed(value: Any) -> bytes:
    """Return a value as it is sent between the processes: the length of its pickle, and the pickle."""
    pickled = pickle.dumps(value)
    return _LENGTH.pack(len(pickled)) + pickled


def length_of(frame: bytes) -> int:
    """Return the length of what follows these first bytes of a frame."""
    (length,) = _LENGTH.unpack(frame)
    return int(length)


class WorkerProcess:
    """A worker as a process, which ends when this one does.

    Its orders, with their secrets, and its notifications go through pipes that no other process can read.
    """

    def __init__(self, orders: Orders) -> None:
        """Start nothing yet."""
        self._orders = orders
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False

    async def run(self, observer: Observer) -> int:
        """Run it, and pass its notifications on.

        Return its exit code, or the negated number of the signal that ended it.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            if self._stopped:
                self.stop()
            await self._order(process)
            await _pass_on(process, observer)
            return await process.wait()
        finally:
            await self._end(process)

    def stop(self) -> None:
        """Ask it to finish the batches in hand, and to end."""
        self._stopped = True
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _order(self, process: asyncio.subprocess.Process) -> None:
        """Send its orders; the pipe stays open for as long as this process lives."""
        if process.stdin is not None:
            process.stdin.write(framed(self._orders))
            try:
                await process.stdin.drain()
            except ConnectionError:
                return  # it has ended already

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Leave no process behind."""
        if process.returncode is None:
            self.kill()
            await asyncio.wait_for(process.wait(), _END_S)


async def _pass_on(process: asyncio.subprocess.Process, observer: Observer) -> None:
    """Notify an observer of what a process sends, until it ends."""
    if process.stdout is None:
        return
    try:
        while True:
            length = length_of(await process.stdout.readexactly(LENGTH_BYTES))
            observer.notify(pickle.loads(await process.stdout.readexactly(length)))  # noqa: S301 - our own process
    except asyncio.IncompleteReadError:
        return
