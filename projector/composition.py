"""Builds the parts of the projector from its settings.

Each method imports the parts that it builds, so that a short command does not load every driver.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING

from projector.domain.rules import RULES_VERSION, Rules
from projector.domain.shards import PUBLISHER, WHOLE, Shard
from projector.resources import folder
from projector.settings.urls import http_address, servers
from projector.stream import subjects
from projector.stream.protocol import REVISIONS, event_names, find_revision
from projector.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from projector.app.division import Division
    from projector.app.explain import Look
    from projector.app.explanation import Sender
    from projector.app.observers import Observer
    from projector.app.ports import Source, Store
    from projector.app.publish import Publishing
    from projector.app.supervisor import Supervisor
    from projector.app.worker import Worker
    from projector.monitoring.monitor import Monitor
    from projector.queries.probe import Probe
    from projector.settings import Settings
    from projector.storage.feed import ChangeLog
    from projector.stream.change_stream import ChangeStream
    from projector.stream.codec import Codec
    from projector.stream.connection import Broker, RawClient
    from projector.stream.publisher import Publisher
    from projector.stream.view import StreamView

DELIVERED_AT_ONCE = 8_000
"""Messages; the size of a batch unless the lag is large."""


class Composition:
    """The parts for one set of settings."""

    def __init__(self, settings: Settings) -> None:
        """Connect to nothing yet.

        Raises:
            SettingError: the protocol revision is unknown.
        """
        self._settings = settings
        self.revision = find_revision(settings.revision)
        self.rules = Rules(version=RULES_VERSION, revision=settings.revision, originators=settings.originators)

    @cached_property
    def codec(self) -> Codec:
        """Reads and writes messages."""
        from projector.stream.codec import Codec

        return Codec(self.revision.name, folder("schemas"))

    def codecs(self) -> tuple[Codec, ...]:
        """Return a codec for every revision: `doctor` tries them on samples."""
        from projector.stream.codec import Codec

        return tuple(Codec(name, folder("schemas")) for name in REVISIONS)

    @cached_property
    def broker(self) -> Broker:
        """How to connect to NATS."""
        from projector.stream.connection import Broker

        return Broker(
            urls=servers(self._settings.nats_url),
            credentials=self._settings.nats_credentials,
            nkey=self._settings.nats_nkey,
            tls_ca=self._settings.nats_tls_ca,
            tls_certificate=self._settings.nats_tls_certificate,
            tls_key=self._settings.nats_tls_key,
            api_prefix=self._settings.nats_api_prefix,
        )

    def supervisor(
        self, observer: Observer, *, shard: Shard = WHOLE, accept_gap: bool, until_caught_up: bool
    ) -> Supervisor:
        """Return what leads a shard, and folds its events."""
        from projector.app.session import LiveOptions
        from projector.app.supervisor import Supervisor
        from projector.storage.store import Store

        options = LiveOptions(
            rules=self.rules,
            stream=self._settings.stream,
            shard=shard,
            linger_s=self._settings.linger_ms / 1000,
            batch_size=self._delivered_at_once,
            largest_batch=self._settings.batch_size,
            accept_gap=accept_gap,
            until_caught_up=until_caught_up,
        )
        settings = self._settings
        store = Store(settings.database_url, shard=shard, retention=settings.changes, publish=settings.publish)
        open_source = partial(self.open_source, shard)
        publishing = self._publishing(observer, shard.of) if self._publishes and shard.number == PUBLISHER else None
        return Supervisor(self.codec, open_source, store, observer, options, publishing=publishing)

    def division(self, observer: Observer) -> Division:
        """Return what changes the number of shards."""
        from projector.app.division import Division

        async def publish(shards: int) -> None:
            await self._publishing(observer, shards).run_once()

        return Division(
            self.codec,
            self.open_replay,
            self._open_store,
            publish if self._publishes else None,
            stream=self._settings.stream,
            rules=self.rules,
        )

    @asynccontextmanager
    async def _open_store(self, shard: Shard) -> AsyncIterator[Store]:
        """Open the store of a shard for the length of a block, without leading it."""
        from projector.storage.store import Store

        store = Store(self._settings.database_url, shard=shard, retention=self._settings.changes)
        try:
            await store.open()
            yield store
        finally:
            await store.close()

    def worker(self, observer: Observer, *, shards: int, accept_gap: bool, until_caught_up: bool) -> Worker:
        """Return a worker, which leads its share of the shards."""
        from projector.app.worker import Worker
        from projector.storage.roster import Roster

        def supervise(shard: Shard, observer: Observer) -> Supervisor:
            return self.supervisor(observer, shard=shard, accept_gap=accept_gap, until_caught_up=until_caught_up)

        roster = Roster(self._settings.database_url, shards)
        return Worker(
            roster,
            supervise,
            observer,
            shards=shards,
            until_caught_up=until_caught_up,
            last=PUBLISHER if self._publishes else None,
        )

    @property
    def _publishes(self) -> bool:
        return self._settings.publish is not None

    def _publishing(self, observer: Observer, shards: int) -> Publishing:
        """Return the task that publishes the changes of all shards."""
        from projector.app.publish import Publishing

        return Publishing(self, observer, shards=shards)

    def log(self) -> AbstractAsyncContextManager[ChangeLog]:
        """Connect to the log of changes for the length of a block."""
        from projector.storage import feed

        return feed.opened(self._settings.database_url)

    def stream(self) -> AbstractAsyncContextManager[ChangeStream]:
        """Connect to the stream of the changes for the length of a block."""
        from projector.stream import change_stream

        return change_stream.opened(self.broker, self._settings.publish or "", self._settings.stream)

    def monitor(self, observer: Observer, *, heartbeat_period_s: float, sample_period_s: float) -> Monitor | None:
        """Return the monitor, or None if the settings turn HTTP off."""
        address = http_address(self._settings.http)
        if address is None:
            return None
        # Imported before the monitor's thread begins: the client has circular imports, and two threads would clash.
        import nats  # noqa: F401

        from projector.monitoring.about import About
        from projector.monitoring.monitor import Monitor, MonitorOptions
        from projector.monitoring.ports import Readers
        from projector.monitoring.server import Address
        from projector.queries.endpoints import EndpointReader
        from projector.stream.codec import encode_text

        about = About(
            version=__version__,
            revision=self._settings.revision,
            rules=self.rules.version,
            stream=self._settings.stream,
        )
        options = MonitorOptions(
            address=Address(*address),
            ready_lag_s=self._settings.ready_lag_s,
            heartbeat_period_s=heartbeat_period_s,
            sample_period_s=sample_period_s,
            observer=observer,
        )
        readers = Readers(
            open_stats=self.open_view,
            database=self.probe("monitoring"),
            endpoints=EndpointReader(self._settings.database_url, self._settings.stream, encode_text),
            names_in=event_names,
        )
        return Monitor(about, self.codec, readers, options)

    @asynccontextmanager
    async def open_source(self, shard: Shard = WHOLE) -> AsyncIterator[Source]:
        """Connect the durable consumer of a shard for the length of a block."""
        from projector.app.ports import Source
        from projector.stream.consumers import DurableConsumer, durable_name
        from projector.stream.view import StreamView

        stream, durable = self._settings.stream, durable_name(self._settings.consumer, shard.number)
        async with self._connected(durable) as client:
            filters = self._filters(client)
            yield Source(
                view=StreamView(client, stream, filters),
                consumer=DurableConsumer(client, stream, durable, filters, batch_size=self._delivered_at_once),
            )

    @asynccontextmanager
    async def open_replay(self) -> AsyncIterator[Source]:
        """Connect a consumer that replays the stream for the length of a block."""
        from projector.app.ports import Source
        from projector.stream.consumers import ReplayConsumer
        from projector.stream.view import StreamView

        stream = self._settings.stream
        async with self._connected("replay") as client:
            filters = self._filters(client)
            yield Source(
                view=StreamView(client, stream, filters),
                consumer=ReplayConsumer(client, stream, filters, batch_size=self._delivered_at_once),
            )

    @asynccontextmanager
    async def open_view(self) -> AsyncIterator[StreamView]:
        """Connect a view of the stream for the length of a block."""
        from projector.stream.view import StreamView

        async with self._connected("view") as client:
            yield StreamView(client, self._settings.stream, self._filters(client))

    @asynccontextmanager
    async def open_look(self) -> AsyncIterator[Look]:
        """Yield a function that looks at messages of the stream, over a connection that its first use opens."""
        from projector.app.explain import sender_of

        async with AsyncExitStack() as opened:
            view: StreamView | None = None

            async def look(position: int) -> Sender | None:
                nonlocal view
                if view is None:
                    view = await opened.enter_async_context(self.open_view())
                message = await view.message(position)
                return None if message is None else sender_of(message, self.codec)

            yield look

    def probe(self, purpose: str) -> Probe:
        """Return what reads the tables for the monitor and for `wait`; the purpose shows in `pg_stat_activity`."""
        from projector.queries.probe import Probe

        settings = self._settings
        return Probe(settings.database_url, settings.stream, purpose=purpose, publish=settings.publish)

    def publisher(self) -> Publisher:
        """Return the publisher of the simulation."""
        from projector.stream.publisher import Publisher

        return Publisher(self.broker, self.codec)

    @property
    def _delivered_at_once(self) -> int:
        return min(DELIVERED_AT_ONCE, self._settings.batch_size)

    def _filters(self, client: RawClient) -> tuple[str, ...]:
        """Return the subject filters for the server that a client is connected to."""
        return subjects.filters(self._settings.originators, self.revision.groups, server_version=client.server_version)

    def _connected(self, purpose: str) -> AbstractAsyncContextManager[RawClient]:
        from projector.stream.connection import connected

        return connected(self.broker, name=f"projector {purpose}")
