"""The writer's connection, and what is read and written outside the transactions of batches."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import Endpoint, FacetSet
from projector.storage import checkpoints, locks, migrate, statements
from projector.storage.checkpoints import Lag
from projector.storage.connection import connect
from projector.storage.failures import translated
from projector.storage.loading import load_over
from projector.storage.unit_of_work import UnitOfWork, transaction
from projector.storage.wire import set_codecs

WRITER_SETTINGS: Mapping[str, str] = {
    # The statements of the hot path are planned once and always reach rows by the primary key:
    # a plan that suits one batch size must not turn into a scan of the whole table for another.
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    # Nobody may hold the checkpoint for long, or wait for it in vain.
    "idle_in_transaction_session_timeout": "8s",
    "lock_timeout": "10s",
    # A machine that has vanished is noticed within seconds.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

LEADER_SETTINGS: Mapping[str, str] = {
    **WRITER_SETTINGS,
    # The lock of the one that works lasts as long as its connection,
    # which a paused process would keep for ever: one that works is heard of every few seconds.
    "idle_session_timeout": "8s",
    "statement_timeout": "1min",
}
_COMMAND_TIMEOUT_S = 70.0
_PING_EVERY_S = 2.0
_PING_TIMEOUT_S = 4.0
_SEEN_AGAIN_MS = 5000
"""After so long, a lag is written down although it is the same."""


class Store:
    """Where a projection is kept; opened before use and again after an error."""

    def __init__(self, url: str) -> None:
        """Remember where the database is: nothing is opened yet."""
        self._url = url
        self._connection: Any = None
        self._reader: Any = None
        self._turn = asyncio.Lock()
        self._asking = 0
        self._active_since = 0
        self._lag: Lag | None = None
        self._written: Lag | None = None

    async def open(self) -> None:
        """Connect, or connect anew.

        Raises:
            NotMigratedError: the tables are not those of this version.
            DatabaseUnavailableError, DatabaseRefusedError: as their names say.
        """
        await self.close()
        connection = await connect(
            self._url,
            purpose=f"writer {_process()}",
            settings=LEADER_SETTINGS,
            command_timeout_s=_COMMAND_TIMEOUT_S,
        )
        reader = None
        try:
            with translated():
                await migrate.check(connection)
                await set_codecs(connection)
                await connection.execute(statements.CREATE_CHANGES)
            reader = await open_reader(self._url)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        self._reader = reader

    async def close(self) -> None:
        """Close the connection at once; what was not committed is rolled back."""
        for connection in (self._connection, self._reader):
            if connection is not None:
                connection.terminate()
        self._connection = self._reader = None

    async def lead(self) -> bool:
        """Try to become the one projector that works; see `locks.lead`."""
        async with self._turn:
            with translated():
                leads = await locks.lead(self._connection)
        if leads:
            self._active_since = now_ms()
            self._lag = self._written = None
        return leads

    def note_lag(self, messages: int) -> None:
        """Remember how many messages of ours are behind; `watch` writes it down."""
        self._lag = Lag(messages, now_ms())

    async def write_lag(self) -> None:
        """Write down what was noted last, for people to read in `projector_status`."""
        async with self._turn:
            with translated():
                await checkpoints.write_activity(
                    self._connection, active_since=self._active_since, lag=self._lag, timeout_s=_PING_TIMEOUT_S
                )
        self._written = self._lag

    async def watch(self) -> None:
        """Keep the connection alive while nothing else uses it; this ends only when the connection is lost.

        Raises:
            DatabaseUnavailableError: it is lost, and with it the lead.
        """
        while True:
            if self._lag_is_news:
                await self.write_lag()
            else:
                async with self._turn:
                    with translated():
                        await self._connection.execute("SELECT 1", timeout=_PING_TIMEOUT_S)
            await asyncio.sleep(_PING_EVERY_S)

    @property
    def waiting(self) -> bool:
        """Whether Postgres is waited for on the path, which the driver ends where it takes too long."""
        return self._asking > 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Begin a transaction on `endpoint_state`; see `unit_of_work.transaction`."""
        with self._counted():
            async with self._turn, transaction(self._connection, UnitOfWork) as work:
                yield work

    async def load(self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """Return working copies of endpoints as they are once what is uncommitted is saved; see `loading.load`."""
        with self._counted(), translated():
            return await load_over(self._reader, "endpoint_state", needed, uncommitted)

    async def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint, or None if nothing was ever folded."""
        async with self._turn:
            with translated():
                return await checkpoints.read(self._connection)

    async def begin(self, checkpoint: Checkpoint) -> None:
        """Write the first checkpoint, unless another projector was quicker."""
        async with self._turn:
            with translated():
                await checkpoints.begin(self._connection, checkpoint)

    @property
    def _lag_is_news(self) -> bool:
        if self._lag is None or self._written is None:
            return self._lag is not None
        return (
            self._lag.messages != self._written.messages or self._lag.seen_at - self._written.seen_at >= _SEEN_AGAIN_MS
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1


async def open_reader(url: str) -> Any:
    """Open a connection that loads endpoints beside the transactions of another.

    Raises:
        DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """
    reader = await connect(url, purpose="reader", settings=WRITER_SETTINGS, command_timeout_s=_COMMAND_TIMEOUT_S)
    with translated():
        await set_codecs(reader)
    return reader


def _process() -> str:
    """Return what tells this process from others, as far as it fits into a connection's name."""
    return f"{socket.gethostname()[:30]}:{os.getpid()}"


def now_ms() -> int:
    """Return the time now, in Unix ms."""
    return time.time_ns() // 1_000_000
