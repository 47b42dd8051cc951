"""Puts the pieces together: the only place that knows all rooms."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from projector import __version__, resources
from projector.app.dead_letters import Retried, retry
from projector.app.doctor.examination import Examination, examine
from projector.app.observers import Observer
from projector.app.ports import Source
from projector.app.rebuild import Progress, Rebuild, RebuildOptions, Report
from projector.app.session import LiveOptions
from projector.app.status import Status
from projector.app.status import status as app_status
from projector.app.supervisor import Supervisor
from projector.app.waiting import Waited, wait_for
from projector.cli import daemon
from projector.cli.log import Journal
from projector.cli.process import (
    collect_garbage_less_often,
    no_garbage_collection,
    stopped_by_signals,
    terminated_like_interrupted,
)
from projector.dev.simulation import Simulation, publish_life
from projector.domain.dead_letters import ListedDeadLetter, StoredDeadLetter
from projector.domain.messages import Selection
from projector.domain.rules import RULES_VERSION, Rules
from projector.domain.summary import Census
from projector.monitoring.about import About
from projector.monitoring.liveness import HEARTBEAT_PERIOD_S
from projector.monitoring.monitor import Monitor, MonitorOptions
from projector.monitoring.sampler import SAMPLE_PERIOD_S
from projector.monitoring.server import Address
from projector.settings import Settings, http_address, servers
from projector.storage import dead_letters, migrate, query
from projector.storage.inspection import inspect as look_at_database
from projector.storage.probe import Probe
from projector.storage.staging import Staging
from projector.storage.store import Store
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.connection import Broker, connected
from projector.stream.consumers import DurableConsumer, ReplayConsumer
from projector.stream.inspection import Wanted
from projector.stream.inspection import inspect as look_at_broker
from projector.stream.provision import create_stream
from projector.stream.publisher import Publisher
from projector.stream.view import StreamView


class Runtime:
    """Everything the command line can do, with one set of settings."""

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet.

        Raises:
            SettingError: the revision is not known.
        """
        schemas = resources.folder("schemas")
        self._settings = settings
        self._database_url = settings.database_url.get_secret_value()
        self._broker = Broker(
            urls=servers(settings.nats_url),
            credentials=settings.nats_credentials,
            nkey=settings.nats_nkey,
            tls_ca=settings.nats_tls_ca,
            tls_certificate=settings.nats_tls_certificate,
            tls_key=settings.nats_tls_key,
        )
        self._codec = Codec(settings.revision, schemas)
        self._filters = subjects.filters(settings.originators)
        self._rules = Rules(
            version=RULES_VERSION,
            revision=settings.revision,
            originators=settings.originators,
        )

    async def init(self) -> bool:
        """Migrate the database and create the stream if it is missing; return whether it was."""
        await migrate.upgrade(self._database_url)
        return await create_stream(self._broker, self._settings.stream)

    def live(
        self, observer: Observer | None = None, *, accept_gap: bool = False, until_caught_up: bool = False
    ) -> Supervisor:
        """Return the daemon's loop."""
        return Supervisor(
            self._codec,
            self._open_source,
            Store(self._database_url),
            observer or Journal(),
            LiveOptions(
                rules=self._rules,
                stream=self._settings.stream,
                linger_s=self._settings.linger_ms / 1000,
                accept_gap=accept_gap,
                until_caught_up=until_caught_up,
            ),
        )

    def monitor(
        self,
        *,
        listening: Callable[[str], None],
        refused: Callable[[str], None],
        or_any_port: bool = False,
        heartbeat_period_s: float = HEARTBEAT_PERIOD_S,
        sample_period_s: float = SAMPLE_PERIOD_S,
    ) -> Monitor | None:
        """Return what watches the daemon, or None where the settings say off; see `MonitorOptions` and `Address`."""
        address = http_address(self._settings.http)
        if address is None:
            return None
        about = About(
            version=__version__,
            revision=self._settings.revision,
            rules=self._rules.version,
            stream=self._settings.stream,
        )
        options = MonitorOptions(
            address=Address(*address, or_any_port),
            ready_lag_s=self._settings.ready_lag_s,
            listening=listening,
            refused=refused,
            heartbeat_period_s=heartbeat_period_s,
            sample_period_s=sample_period_s,
        )
        database = self._probe("monitoring")
        return Monitor(about, self._codec, self._open_view, database, options)

    async def run(self, *, accept_gap: bool, until_caught_up: bool) -> None:
        """Run the daemon until SIGTERM or SIGINT, or until the end of the stream.

        Raises:
            FatalError: going on would be wrong or pointless.
        """
        journal = Journal()
        journal.starting(self._settings, self._rules)
        collect_garbage_less_often()

        def live(observer: Observer) -> Supervisor:
            return self.live(observer, accept_gap=accept_gap, until_caught_up=until_caught_up)

        await daemon.run(live, journal, self.monitor(listening=journal.listening, refused=journal.not_listening))

    async def rebuild(
        self,
        progress: Progress,
        *,
        apply: bool,
        accept_trimmed: bool = False,
        show: int = 0,
        endpoint_id: str | None = None,
    ) -> Report:
        """Compare the table with what the stream implies, and change what differs if `apply` says so.

        Raises:
            RebuildRunningError, StreamTrimmedError: as their names say.
            TransientError, FatalError: nothing was changed.
        """
        staging = Staging(self._database_url, "rebuild" if apply else "verify")
        options = RebuildOptions(
            rules=self._rules,
            stream=self._settings.stream,
            apply=apply,
            accept_trimmed=accept_trimmed,
            show=show,
            endpoint_id=endpoint_id,
        )
        try:
            await staging.open()
            with no_garbage_collection(), terminated_like_interrupted():
                return await Rebuild(self._codec, self._open_replay, staging, options, progress).run()
        finally:
            await staging.close()

    async def is_of_other_rules(self) -> bool:
        """Tell whether the rows were built by other rules than those of this version."""
        built = (await query.summary(self._database_url, self._settings.stream)).rules_version
        return built not in {None, self._rules.version}

    async def status(self) -> Status:
        """Return what the projector can say of itself."""
        async with self._open_view() as view:
            return await app_status(
                self._settings.stream,
                view,
                lambda: query.summary(self._database_url, self._settings.stream),
                rules_version=self._rules.version,
            )

    async def doctor(self, monitoring: str | None = None) -> Examination:
        """Look at both servers and say what will hurt; `monitoring` is the URL of NATS' monitoring endpoint."""
        wanted = Wanted(
            stream=self._settings.stream,
            consumer=self._settings.consumer,
            originators=self._settings.originators,
            event_types=self._codec.revision.event_types,
        )
        return await examine(
            partial(look_at_broker, self._broker, wanted, monitoring=monitoring),
            partial(look_at_database, self._database_url),
            stream=self._settings.stream,
            rules=self._rules,
        )

    async def wait(self, position: int, *, timeout_s: float | None) -> Waited:
        """Return when everything up to a position is folded, or the time is over.

        Raises:
            TransientError, FatalError: as their names say.
        """
        probe = self._probe("wait")
        try:
            await probe.open()
            found = await wait_for(position, probe.position, timeout_s=timeout_s)
            reached = found >= position
            return Waited(reached, found, None if reached else (await probe.summary()).active)
        finally:
            await probe.close()

    async def census(self) -> Census:
        """Count the endpoints of each kind."""
        return await query.census(self._database_url)

    async def dead_letters(self) -> list[ListedDeadLetter]:
        """Return the dead letters that wait for somebody."""
        return await dead_letters.listed(self._database_url, self._settings.stream)

    async def dead_letter(self, position: int) -> tuple[StoredDeadLetter, dict[str, Any]]:
        """Return a dead letter, and its fields as far as they can be read."""
        letter = await dead_letters.shown(self._database_url, self._settings.stream, position)
        return letter, self._codec.explain(letter.subject, letter.payload)

    async def retry(self, selection: Selection, report: Callable[[Retried], None]) -> None:
        """Fold dead letters, and report what came of each."""
        store = dead_letters.Retry(self._database_url, self._settings.stream)
        try:
            await store.open()
            async for retried in retry(self._codec, store, selection, stream=self._settings.stream, rules=self._rules):
                report(retried)
        finally:
            await store.close()

    async def discard(self, selection: Selection, note: str) -> int:
        """Close dead letters that nobody will retry; return how many."""
        return await dead_letters.discard(self._database_url, self._settings.stream, selection, note)

    async def sql(self, statement: str) -> query.Answer:
        """Run one statement that may only read."""
        return await query.query(self._database_url, statement)

    async def simulate(self, simulation: Simulation, stop: asyncio.Event) -> int:
        """Publish a fleet's life until told to stop, or as many events as it says; return how many.

        Raises:
            BrokerUnavailableError, BrokerRefusedError: as their names say.
        """
        publisher = Publisher(self._broker, self._codec)
        await publisher.open()
        try:
            return await publish_life(simulation, publisher, stop)
        finally:
            await publisher.close()

    async def simulate_until_stopped(self, simulation: Simulation) -> int:
        """Publish a fleet's life until SIGTERM or SIGINT at the latest; return how many events were published."""
        stop = asyncio.Event()
        with stopped_by_signals(stop.set):
            return await self.simulate(simulation, stop)

    @asynccontextmanager
    async def _open_source(self) -> AsyncIterator[Source]:
        durable, stream = self._settings.consumer, self._settings.stream
        async with connected(self._broker, name=f"projector {durable}") as client:
            yield Source(
                view=StreamView(client, stream, self._filters),
                consumer=DurableConsumer(client, stream, durable, self._filters, batch_size=self._settings.batch_size),
            )

    @asynccontextmanager
    async def _open_replay(self) -> AsyncIterator[Source]:
        stream = self._settings.stream
        async with connected(self._broker, name="projector replay") as client:
            yield Source(
                view=StreamView(client, stream, self._filters),
                consumer=ReplayConsumer(client, stream, self._filters, batch_size=self._settings.batch_size),
            )

    @asynccontextmanager
    async def _open_view(self) -> AsyncIterator[StreamView]:
        async with connected(self._broker, name="projector view") as client:
            yield StreamView(client, self._settings.stream, self._filters)

    def _probe(self, purpose: str) -> Probe:
        return Probe(self._database_url, self._settings.stream, purpose=purpose)
