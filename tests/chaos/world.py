"""The real servers, and daemons behind proxies of their own."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import asyncpg
from nats.aio.client import Client

from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres
from tests.chaos.cluster import NatsCluster
from tests.chaos.nats_proxy import NatsProxy
from tests.chaos.postgres_proxy import PostgresProxy
from tests.chaos.traffic import REFUSED
from tests.support import servers
from tests.support.nats_client import lasting_client

_STOP_S = 30.0
_LOG_LINES = 12
_STARTED = "--- started"


class World:
    """NATS and Postgres, for run after run; each run has a database and a stream of its own."""

    def __init__(self, broker: Callable[[Path], EmbeddedNats | NatsCluster] = servers.nats_in) -> None:
        self._stack = AsyncExitStack()
        self.folder = Path()
        """Where the servers are, until the end."""
        self._broker = broker
        self.nats: EmbeddedNats | NatsCluster
        self.postgres: EmbeddedPostgres

    async def __aenter__(self) -> Self:
        self.folder = self._stack.enter_context(servers.server_folder())
        self.nats = self._broker(self.folder / "nats")
        self.postgres = await asyncio.to_thread(servers.postgres_in, self.folder / "postgres")
        for server in (self.nats, self.postgres):
            await asyncio.to_thread(server.start)
            self._stack.callback(server.stop)
        async with self.connected(servers.MIGRATED) as connection:
            await connection.execute(f"ALTER TABLE endpoint_state ADD CHECK (endpoint_id <> '{REFUSED}')")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def ask(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Ask Postgres directly, not through a proxy."""
        async with self.connected("postgres") as connection:
            return await connection.fetch(sql, *arguments)

    @asynccontextmanager
    async def connected(self, database: str) -> AsyncIterator[asyncpg.Connection]:
        """Connect to a database directly."""
        connection = await asyncpg.connect(self.postgres.url_of(database))
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Make a migrated database, and drop it at the end."""
        async with servers.database(self.postgres) as url:
            yield urlsplit(url).path.removeprefix("/")

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Connect to NATS directly; the client survives restarts of the server."""
        async with lasting_client(self.nats.url) as client:
            yield client

    @asynccontextmanager
    async def daemon(self, name: str, database: str, stream: str) -> AsyncIterator["Daemon"]:
        """Put proxies in place for a daemon, and end it at the end."""
        folder = self.folder / f"{name}-{secrets.token_hex(3)}"
        folder.mkdir()
        async with (
            NatsProxy(self.nats.url) as broker,
            PostgresProxy(folder, self.folder / "postgres" / "data") as postgres,
        ):
            daemon = Daemon(name, folder / "log", broker, postgres)
            daemon.environment = {
                "PROJECTOR_NATS_URL": broker.url,
                "PROJECTOR_DATABASE_URL": f"postgresql://postgres@/{database}?host={quote(str(folder))}",
                "PROJECTOR_STREAM": stream,
                "PROJECTOR_HTTP": "off",
            }
            try:
                yield daemon
            finally:
                daemon.kill()


class Daemon:
    """A daemon that can be started again after it has ended, each time with other settings."""

    def __init__(self, name: str, log: Path, broker: NatsProxy, postgres: PostgresProxy) -> None:
        self.name = name
        self.nats = broker
        self.postgres = postgres
        self.environment: dict[str, str] = {}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def start(self, *flags: str, **settings: object) -> None:
        """Start it; `settings` are named as those of the projector."""
        environment = self.environment | {f"PROJECTOR_{key.upper()}": str(value) for key, value in settings.items()}
        with self._log.open("ab") as log:
            log.write(f"{_STARTED}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "projector", "run", *flags],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it at once, if there is anything to end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Pause it, let it go on or ask it to end."""
        if self._process is not None:
            self._process.send_signal(number)

    async def has_logged(self, event: str) -> bool:
        """Tell whether it has logged an event since it was last started."""
        return any(f'"event": "{event}"' in line for line in takewhile(_STARTED.__ne__, reversed(self._lines())))

    async def finish(self) -> None:
        """Let it end by itself.

        Raises:
            AssertionError: it did not, or not with exit code 0.
        """
        if self._process is None:
            return
        if not await self.ends():
            raise AssertionError(f"daemon {self.name} does not end: {self.tail()}")
        code, self._process = self._process.returncode, None
        if code:
            raise AssertionError(f"daemon {self.name} ended with code {code}: {self.tail()}")

    async def ends(self) -> bool:
        """Wait some time for its end; return whether it came."""
        if self._process is None:
            return True
        try:
            await asyncio.to_thread(self._process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def check(self) -> None:
        """Make sure that it has not ended by itself, and that its proxies work.

        Raises:
            AssertionError: it has, or one does not.
        """
        for proxy in (self.nats, self.postgres):
            if proxy.error is not None:
                raise AssertionError(f"a proxy of daemon {self.name} failed") from proxy.error
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"daemon {self.name} ended with code {self._process.returncode}: {self.tail()}")

    def tail(self) -> str:
        """Return the end of its log; nothing if it was never started."""
        return "\n".join(["", *self._lines()[-_LOG_LINES:]])

    def _lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
