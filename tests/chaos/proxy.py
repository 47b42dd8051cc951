"""A proxy between a daemon and a server, which disturbs connections at chosen moments."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

_CHUNK = 64 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Way(Enum):
    """Which way bytes flow."""

    TO_SERVER = 0
    TO_DAEMON = 1


@dataclass(eq=False)
class Link:
    """One connection of the daemon, and ours to the server on its behalf."""

    daemon: Streams
    server: Streams
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reader(self, way: Way) -> asyncio.StreamReader:
        """Return where the bytes of one way come from."""
        return (self.daemon, self.server)[way.value][0]

    def writer(self, way: Way) -> asyncio.StreamWriter:
        """Return where the bytes of one way go."""
        return (self.server, self.daemon)[way.value][1]

    def cut(self) -> None:
        """Reset both ends; nothing that was not forwarded ever will be."""
        for _, writer in (self.daemon, self.server):
            writer.transport.abort()


class Proxy(ABC):
    """Forwards every connection that a daemon opens to one server."""

    def __init__(self) -> None:
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._budget: dict[Way, int] = {}
        self._spent = asyncio.Event()
        self.away = False
        """Whether new connections are refused, as if there were no server."""
        self.error: Exception | None = None
        """What went wrong in the proxy itself, or in what a fault made it do."""

    async def __aenter__(self) -> Self:
        self._server = await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*(task for link in self._links for task in link.tasks), return_exceptions=True)

    @abstractmethod
    async def _listen(self) -> asyncio.Server: ...

    @abstractmethod
    async def _connect(self) -> Streams: ...

    @abstractmethod
    async def _forward(self, link: Link, way: Way) -> None:
        """Forward until an end closes."""

    def cut(self) -> None:
        """Reset every connection now."""
        for link in self._links:
            link.cut()

    def cut_after(self, count: int, way: Way) -> asyncio.Event:
        """Reset the connection on which `count` more bytes have gone one way; return an event that is set then."""
        self._budget = {way: count}
        self._spent = asyncio.Event()
        return self._spent

    def stall(self) -> None:
        """Forward nothing and close nothing, as a network that swallows packets."""
        self._open.clear()

    def release(self) -> None:
        """Resume after `stall`."""
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.away:
                raise ConnectionRefusedError
            server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = Link((reader, writer), server)
        link.tasks = [asyncio.create_task(self._run(link, way)) for way in Way]
        self._links.add(link)
        await asyncio.wait(link.tasks)
        self._links.discard(link)

    async def _run(self, link: Link, way: Way) -> None:
        try:
            with suppress(OSError, EOFError):
                await self._forward(link, way)
        except Exception as error:  # noqa: BLE001 - the trial raises it
            self.error = error
        finally:
            link.cut()

    async def _send(self, link: Link, way: Way, data: bytes) -> None:
        await self._open.wait()
        left = self._budget.get(way)
        if left is not None:
            self._budget[way] = left - len(data)
            data = data[:left]
        link.writer(way).write(data)
        await link.writer(way).drain()
        if left is not None and self._budget.get(way, 1) <= 0:
            self._budget = {}
            self._spent.set()
            raise ConnectionResetError
