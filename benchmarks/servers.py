"""The servers that everything is measured on: one Postgres, and a NATS for each stream."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Self

import asyncpg
import psutil

from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres

POSTGRES_SETTINGS = {
    # The defaults, durable commits included, except for what any larger server would be given.
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
}

Meter = Callable[[], float]
"""CPU seconds that a server has used so far."""


class Servers:
    """A running Postgres, and a folder for the other servers."""

    def __init__(self, folder: Path) -> None:
        """Remember where: nothing is started yet."""
        self.folder = folder
        self.no_settings = folder / "projector.toml"
        """An empty file of settings, so that no other is found."""
        self._postgres = EmbeddedPostgres(folder / "postgres", POSTGRES_SETTINGS)
        self._process: psutil.Process | None = None
        self._numbers = count(1)

    def __enter__(self) -> Self:
        self.no_settings.touch()
        self._process = _start(self._postgres)
        return self

    def __exit__(self, *_: object) -> None:
        self._postgres.stop()

    @property
    def url(self) -> str:
        """The URL of the Postgres, for what concerns no database in particular."""
        return self._postgres.url

    def postgres_cpu_s(self) -> float:
        """Return the CPU seconds of all of Postgres, backends that are gone included."""
        return cpu_s_with_children(self._process)

    def create_database(self, name: str) -> str:
        """Create a database and return its URL."""
        execute(self.url, f"CREATE DATABASE {name}")
        return self._postgres.url_of(name)

    @contextmanager
    def copy(self, template: str, *statements: str) -> Iterator[str]:
        """Yield the URL of a copy of a database for the length of a block, after statements that change it.

        Copying files makes a checkpoint, so that every measurement begins with none due.
        """
        name = f"copy_{next(self._numbers)}"
        execute(self.url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            url = self._postgres.url_of(name)
            execute(url, *statements, "CHECKPOINT")
            yield url
        finally:
            execute(self.url, f"DROP DATABASE {name} WITH (FORCE)")


class Nats:
    """A NATS in its own folder; `with` runs it, as often as needed, at the same URL."""

    def __init__(self, folder: Path) -> None:
        """Remember where: nothing is started yet."""
        self._server = EmbeddedNats(folder)
        self._process: psutil.Process | None = None

    def __enter__(self) -> Self:
        self._process = _start(self._server)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        """The URL, which is known from the first start on."""
        return self._server.url

    def cpu_s(self) -> float:
        """Return the CPU seconds used since it was started."""
        return cpu_s_with_children(self._process)


def execute(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""

    async def run(connection: Any) -> None:
        for statement in statements:
            await connection.execute(statement)

    _with_connection(url, run)


def ask(url: str, question: str) -> Any:
    """Return the first value of the first row that a query gives."""
    return _with_connection(url, lambda connection: connection.fetchval(question))


def _with_connection(url: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


def _start(server: EmbeddedNats | EmbeddedPostgres) -> psutil.Process:
    before = set(psutil.Process().children())
    server.start()
    return next(child for child in psutil.Process().children() if child not in before)


def cpu_s_with_children(process: psutil.Process | None) -> float:
    """Return the CPU seconds that a running process and its children have used so far."""
    if process is None:
        raise RuntimeError("the server is not running")
    own = process.cpu_times()
    # What a child used counts as its parent's once the child is gone; psutil knows this on Linux only.
    total: float = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return total
