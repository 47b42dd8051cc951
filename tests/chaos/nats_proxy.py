"""A proxy that reads just enough of NATS' protocol to know deliveries, requests for them and acknowledgements."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from urllib.parse import urlsplit

from tests.chaos.proxy import Link, Proxy, Streams, Way


class Tampering(Enum):
    """What happens to a delivery."""

    DROP = "is dropped"
    REPEAT = "comes twice"
    SWAP = "comes after the next one"


class NatsProxy(Proxy):
    """Knows deliveries, requests for them and acknowledgements."""

    def __init__(self, server_url: str) -> None:
        super().__init__()
        self.witness: Callable[[int], Awaitable[None]] | None = None
        """Sees the stream position of each acknowledgement before it passes."""
        self._target = urlsplit(server_url)
        self._tampering: Tampering | None = None
        self._skip = 0
        self._tampered = asyncio.Event()
        self._held: dict[Link, bytes] = {}
        self._before_pull: Callable[[], Awaitable[None]] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def tamper(self, how: Tampering, after: int) -> asyncio.Event:
        """Tamper with one delivery after some have passed; return an event that is set once that has happened."""
        self._tampering, self._skip = how, after
        self._tampered = asyncio.Event()
        return self._tampered

    def before_first_pull(self, act: Callable[[], Awaitable[None]] | None) -> None:
        """Act between each creation of a consumer and the first request to it; None: stop acting."""
        self._before_pull = act

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connect(self) -> Streams:
        return await asyncio.open_connection(self._target.hostname, self._target.port)

    async def _forward(self, link: Link, way: Way) -> None:
        reader = link.reader(way)
        created = False
        while True:
            line = await reader.readuntil(b"\r\n")
            verb, *words = line.split()
            payload = b""
            if verb.upper() in _WITH_PAYLOAD:
                payload = await reader.readexactly(int(words[-1]) + 2)
            if way is Way.TO_SERVER:
                acknowledged = _ACKNOWLEDGEMENT.match(line)
                if acknowledged and self.witness is not None:
                    await self.witness(int(acknowledged[1]))
                created = created or b"$JS.API.CONSUMER.CREATE." in line or b"$JS.API.CONSUMER.DURABLE." in line
                if created and b"$JS.API.CONSUMER.MSG.NEXT." in line:
                    created = False
                    if self._before_pull is not None:
                        await self._before_pull()
            for frame in self._tampered_with(link, line, payload):
                await self._send(link, way, frame)

    def _tampered_with(self, link: Link, line: bytes, payload: bytes) -> Iterator[bytes]:
        frame = line + payload
        if self._tampering is None or not _DELIVERY.match(line):
            yield frame
            return
        self._skip -= 1
        if self._skip >= 0:
            yield frame
        elif link in self._held:
            yield frame
            yield self._held.pop(link)
            self._done()
        elif self._tampering is Tampering.SWAP:
            self._held[link] = frame
        else:
            yield from (frame, frame) if self._tampering is Tampering.REPEAT else ()
            self._done()

    def _done(self) -> None:
        self._tampering = None
        self._held.clear()
        self._tampered.set()


_WITH_PAYLOAD = (b"PUB", b"HPUB", b"MSG", b"HMSG")
_ACKNOWLEDGEMENT = re.compile(rb"PUB \$JS\.ACK\.[^.]+\.[^.]+\.\d+\.(\d+)\.")
_DELIVERY = re.compile(rb"H?MSG \S+ \S+ \$JS\.ACK\.")
