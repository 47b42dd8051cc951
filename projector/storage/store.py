"""The daemon's connections: one writes and holds the lead, one loads endpoints."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial

from projector.domain.checkpoint import Checkpoint
from projector.domain.endpoint import Endpoint, FacetSet
from projector.domain.shards import WHOLE, Shard
from projector.errors import DatabaseUnavailableError
from projector.storage import change_log, checkpoints, dialect, feed, locks, version
from projector.storage.checkpoints import Lag
from projector.storage.connection import Connection, connect, disconnect, of_this_process
from projector.storage.dialect import Dialect
from projector.storage.failures import translated
from projector.storage.loading import load
from projector.storage.unit_of_work import UnitOfWork, transaction
from projector.storage.wire import set_codecs

WRITER_SETTINGS: Mapping[str, str] = {
    # Plan the statements of the hot path once, and always access rows by the primary key:
    # a plan made for one batch size must not scan the table for another.
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    # Times in JSON are in UTC.
    "timezone": "UTC",
    # A policy must not hide rows: a hidden row would be taken for a missing one.
    "row_security": "off",
    # Settings of the role or the database must not end a long replay, or change what a transaction sees.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    # No connection may hold the checkpoint for long, or wait for it forever.
    "idle_in_transaction_session_timeout": "8s",
    "lock_timeout": "10s",
    # Detect within seconds that a client has vanished.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

LEADER_SETTINGS: Mapping[str, str] = {
    **WRITER_SETTINGS,
    # The leader's lock lasts as long as its connection, which a paused process would keep forever.
    # `watch` keeps the connection of a live leader from being idle.
    "idle_session_timeout": "8s",
    "statement_timeout": "1min",
}
_COMMAND_TIMEOUT_S = 70.0
_PING_EVERY_S = 2.0
_PING_TIMEOUT_S = 4.0
_SEEN_AGAIN_MS = 5000
"""An unchanged lag is written again after this time."""
_PREPARE_EVERY_S = 600.0


class Store:
    """The daemon's access to the projection; opened before use and again after an error."""

    def __init__(
        self,
        url: str,
        *,
        shard: Shard = WHOLE,
        retention: timedelta | None = None,
        publish: str | None = None,
    ) -> None:
        """Open nothing yet.

        `shard` says which endpoints to keep;
        `retention` is how long the changes are kept; None: they are not logged;
        `publish` is the prefix under which they are published; None: they are not.
        """
        self._url = url
        self._shard = shard
        self._retention = retention
        self._publish = publish
        self._connection: Connection
        self._reader: Connection
        self._dialect: Dialect
        self._opened: list[Connection] = []
        self._turn = asyncio.Lock()
        self._running = 0
        self._active_since = 0
        self._lag: Lag | None = None
        self._written: Lag | None = None
        self._prepare_at = 0.0

    async def open(self) -> None:
        """Connect, or reconnect."""
        await self.close()
        try:
            self._connection = connection = await connect(
                self._url,
                purpose=of_this_process("writer"),
                settings=LEADER_SETTINGS,
                command_timeout_s=_COMMAND_TIMEOUT_S,
            )
            self._opened.append(connection)
            with translated():
                await version.check(connection)
                await checkpoints.check_shards(connection, self._shard.of)
                await set_codecs(connection)
                self._dialect = await dialect.choose(connection)
                await self._dialect.prepare_saving(connection)
                if self._retention is not None:
                    await change_log.prepare(connection, self._retention)
            self._reader = await open_reader(self._url, self._dialect)
            self._opened.append(self._reader)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect at once, which rolls an open transaction back; does nothing if not connected."""
        while self._opened:
            self._opened.pop().terminate()

    async def leave(self) -> None:
        """Disconnect, and wait until the server has released the lead; does nothing if not connected."""
        try:
            if self._opened:
                await disconnect(self._connection)
        finally:
            await self.close()

    async def lead(self) -> bool:
        """Try to become the leader; see `locks.lead`."""
        async with self._turn:
            with translated():
                leads = await locks.lead(self._connection, self._shard.number)
                if leads:
                    await dialect.check(self._connection, self._dialect)
                    await self._dialect.settle(self._connection)
                    await self._switch()
        if leads:
            self._active_since = now_ms()
            self._lag = self._written = None
            self._prepare_at = time.monotonic() + _PREPARE_EVERY_S
        return leads

    def note_lag(self, messages: int) -> None:
        """Note how many matching messages are not folded; `watch` writes it."""
        self._lag = Lag(messages, now_ms())

    async def write_lag(self) -> None:
        """Write the lag noted last, for users to read in `projector_status`."""
        async with self._turn:
            with translated():
                await checkpoints.write_activity(
                    self._connection, self._shard.number, self._active_since, self._lag, _PING_TIMEOUT_S
                )
        self._written = self._lag

    @property
    def logs_changes(self) -> bool:
        """Whether every commit writes its changes."""
        return self._retention is not None

    async def watch(self) -> None:
        """Keep the connection busy; this ends only with an error, when the connection and the lead are lost."""
        while True:
            await self._prepare_in_time()
            if self._lag_is_news:
                await self.write_lag()
            else:
                async with self._turn:
                    with translated():
                        await self._connection.execute("SELECT 1", timeout=_PING_TIMEOUT_S)
            await asyncio.sleep(_PING_EVERY_S)

    @property
    def waiting(self) -> bool:
        """Whether a query of the hot path is running; the driver ends it if it takes too long."""
        return self._running > 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Begin a transaction on `endpoint_state`; see `unit_of_work.transaction`."""
        work_of = partial(UnitOfWork, dialect=self._dialect, shard=self._shard, logs_changes=self.logs_changes)
        with self._counted():
            async with self._turn, transaction(self._connection, work_of) as work:
                yield work
            self._dialect.check_commit()

    async def load(self, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """Return working copies of endpoints as if uncommitted ones were saved."""
        with self._counted(), translated():
            return await load(self._reader, self._dialect, "endpoint_state", needed, uncommitted)

    async def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint, or None if nothing was ever folded."""
        async with self._turn:
            with translated():
                return await checkpoints.read(self._connection, self._shard.number)

    async def begin(self, checkpoint: Checkpoint) -> None:
        """Write the first checkpoint, unless another projector has written one."""
        async with self._turn:
            with translated():
                await checkpoints.begin(self._connection, checkpoint)
                await self._switch()

    async def _switch(self) -> None:
        """Note what happens to the changes of every commit from now on."""
        await change_log.switch(self._connection, self._shard.number, on=self.logs_changes)
        if self._publish is not None:
            await feed.begin(self._connection, self._publish, self._shard.number)

    async def _prepare_in_time(self) -> None:
        """Make and drop partitions of the log, over a connection of its own, so that no commit waits for it."""
        if self._retention is None or time.monotonic() < self._prepare_at:
            return
        self._prepare_at = time.monotonic() + _PREPARE_EVERY_S
        # It may fail for hours, as during a dump: partitions are made days ahead, and what cannot be dropped stays.
        with suppress(DatabaseUnavailableError):
            await change_log.maintain(self._url, self._retention)

    @property
    def _lag_is_news(self) -> bool:
        lag, written = self._lag, self._written
        if lag is None or written is None:
            return lag is not None
        return lag.messages != written.messages or lag.seen_at >= written.seen_at + _SEEN_AGAIN_MS

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


async def open_reader(url: str, dialect: Dialect) -> Connection:
    """Open a connection that loads endpoints outside the transactions of another."""
    reader = await connect(url, purpose="reader", settings=WRITER_SETTINGS, command_timeout_s=_COMMAND_TIMEOUT_S)
    try:
        with translated():
            await set_codecs(reader)
            await dialect.configure(reader)
    except BaseException:
        reader.terminate()
        raise
    return reader


def now_ms() -> int:
    """Return the current time in Unix ms."""
    return time.time_ns() // 1_000_000
