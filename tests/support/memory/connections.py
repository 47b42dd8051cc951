"""Connections to a server in memory."""

import asyncio
from collections.abc import Callable

from projector.errors import FatalError, TransientError


class Connection:
    """One connection. Every use of it fails once it is lost."""

    def __init__(self, error: type[TransientError], turns: Callable[[], int] = lambda: 1) -> None:
        """Take what a lost connection raises, and how many turns of the loop each wait takes."""
        self._error = error
        self._turns = turns
        self.lost = asyncio.Event()

    async def turn(self) -> None:
        """Let other tasks run, as waiting for a server does."""
        for _ in range(self._turns()):
            await asyncio.sleep(0)
        if self.lost.is_set():
            raise self._error("the connection is lost")


class Connections:
    """The connections to one server."""

    def __init__(self, error: type[TransientError]) -> None:
        self._error = error
        self._open: set[Connection] = set()
        self.turns: Callable[[], int] = lambda: 1
        """How many turns of the loop a wait takes."""
        self.reachable = True
        self.refusal: FatalError | None = None
        """What a new connection is refused with."""

    async def connect(self) -> Connection:
        await asyncio.sleep(0)
        if not self.reachable:
            raise self._error("the server is not reachable")
        if self.refusal is not None:
            raise self.refusal
        connection = Connection(self._error, self.turns)
        self._open.add(connection)
        return connection

    def disconnect(self, connection: Connection) -> None:
        connection.lost.set()
        self._open.discard(connection)

    def lose(self) -> None:
        """Cut every connection; new ones can be made while the server is reachable."""
        for connection in tuple(self._open):
            self.disconnect(connection)
