"""A proxy that reads just enough of Postgres' protocol to know where a message ends and which ones are commits."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.chaos.proxy import Link, Proxy, Streams, Way


class Moment(Enum):
    """Where in the life of a commit something happens."""

    BEFORE = "before the commit is sent"
    SENT = "when the commit is sent, before its result is known"
    UNANSWERED = "when the commit is done and its answer on the way"
    AFTER = "when the answer has arrived"


Act = Callable[[Link], Awaitable[None]]


@dataclass(eq=False)
class Ambush:
    """What to do at a moment of the n-th commit from now."""

    countdown: int
    moment: Moment
    act: Act
    sprung: asyncio.Event = field(default_factory=asyncio.Event)


async def cut(link: Link) -> None:
    """Do the usual thing in an ambush: reset the connection."""
    link.cut()


class PostgresProxy(Proxy):
    """Knows commits, and requests for the leader's lock."""

    def __init__(self, folder: Path, server_folder: Path) -> None:
        super().__init__()
        self._name = ".s.PGSQL.5432"
        self._folder = folder
        self._target = server_folder / self._name
        self._ambush: Ambush | None = None
        self._committing: set[Link] = set()
        self.commits = 0
        self._lied: asyncio.Event | None = None

    def ambush(self, countdown: int, moment: Moment, act: Act = cut) -> Ambush:
        """Prepare to act at a moment of the n-th commit from now."""
        self._ambush = Ambush(countdown, moment, act)
        return self._ambush

    def lie(self) -> asyncio.Event:
        """Grant the leader's lock to every daemon until told not to; return an event that is set at the first grant."""
        self._lied = asyncio.Event()
        return self._lied

    def lie_no_more(self) -> None:
        """Leave the lock to the server."""
        self._lied = None

    async def _listen(self) -> asyncio.Server:
        self._folder.mkdir(exist_ok=True)
        return await asyncio.start_unix_server(self._accept, self._folder / self._name)

    async def _connect(self) -> Streams:
        return await asyncio.open_unix_connection(self._target)

    async def _forward(self, link: Link, way: Way) -> None:
        reader = link.reader(way)
        if way is Way.TO_SERVER:
            size = await reader.readexactly(4)
            await self._send(link, way, size + await reader.readexactly(int.from_bytes(size) - 4))
        while True:
            head = await reader.readexactly(5)
            frame = head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
            if way is Way.TO_SERVER:
                await self._to_server(link, frame)
            else:
                await self._to_daemon(link, frame)

    async def _to_server(self, link: Link, frame: bytes) -> None:
        if self._lied is not None and frame[:1] in b"PQ" and _LOCK.search(frame):
            frame = _reframed(_LOCK.sub(rb"(\1) IS NOT NULL", frame))
            self._lied.set()
        if not _COMMIT.match(frame):
            await self._send(link, Way.TO_SERVER, frame)
            return
        self.commits += 1
        if self._ambush is not None:
            self._ambush.countdown -= 1
        await self._reach(Moment.BEFORE, link)
        self._committing.add(link)
        await self._send(link, Way.TO_SERVER, frame)
        await self._reach(Moment.SENT, link)

    async def _to_daemon(self, link: Link, frame: bytes) -> None:
        done = link in self._committing and frame[:1] == b"C" and b"COMMIT" in frame
        if done:
            self._committing.discard(link)
            await self._reach(Moment.UNANSWERED, link)
        await self._send(link, Way.TO_DAEMON, frame)
        if done:
            await self._reach(Moment.AFTER, link)

    async def _reach(self, moment: Moment, link: Link) -> None:
        ambush = self._ambush
        if ambush is None or ambush.countdown > 0 or ambush.moment is not moment:
            return
        self._ambush = None
        await ambush.act(link)
        ambush.sprung.set()
        if link.writer(Way.TO_SERVER).transport.is_closing():
            raise ConnectionResetError


_COMMIT = re.compile(rb"[QP].{4}\0?COMMIT\b", re.DOTALL | re.IGNORECASE)
_LOCK = re.compile(rb"pg_try_advisory_lock\((hashtextextended\(\$1, \$2\))\)")


def _reframed(frame: bytes) -> bytes:
    return frame[:1] + (len(frame) - 1).to_bytes(4) + frame[5:]
