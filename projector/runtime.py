"""The public API: each operation composes the parts it needs, runs them and closes them."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from projector.app.observers import Observer, Observers
from projector.composition import Composition
from projector.errors import ShardsChangedError
from projector.monitoring.liveness import HEARTBEAT_PERIOD_S
from projector.monitoring.sampler import SAMPLE_PERIOD_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from datetime import datetime
    from types import TracebackType

    from projector.app.crew import Crew
    from projector.app.dead_letters import Retried
    from projector.app.explanation import Explanation
    from projector.app.rebuild import Report
    from projector.app.replay import Progress
    from projector.app.status import Status
    from projector.app.supervisor import Supervisor
    from projector.app.waiting import Waited
    from projector.app.worker import Worker
    from projector.doctor.examination import Examination
    from projector.domain.dead_letters import ListedDeadLetter, StoredDeadLetter
    from projector.domain.messages import Selection
    from projector.domain.rules import Rules
    from projector.domain.summary import Census
    from projector.queries.statement import Answer
    from projector.settings import Settings


class Projector:
    """The endpoint state projector, for use in a program of your own.

    ```python
    async with Projector(Settings(database_url="postgresql://db/fleet")) as projector:
        await projector.run()
    ```

    Leaving the block stops `run` and waits for its end.
    The other methods open the connections they need and close them again, even while `run` is in progress.
    One process and one event loop can hold several projectors;
    with `Settings(http="off")` a projector serves no HTTP.
    It installs no signal handlers and configures no logging: it reports to its observers.

    Every method raises a `TransientError` if a server cannot be reached now (`run` retries instead),
    and a `FatalError` if a retry would be pointless.
    """

    _heartbeat_period_s = HEARTBEAT_PERIOD_S
    _sample_period_s = SAMPLE_PERIOD_S

    def __init__(self, settings: Settings, *, observers: Sequence[Observer] = ()) -> None:
        """Connect to nothing yet.

        Raises:
            SettingError: the revision is unknown.
        """
        self._parts = Composition(settings)
        self._stream = settings.stream
        self._consumer = settings.consumer
        self._originators = settings.originators
        self._database_url = settings.database_url
        self._retention = settings.changes
        self._publish = settings.publish
        self.changes_stream: str | None = None
        """The stream that stores the published changes, once `init` has run; None if changes are not published."""
        self._observers = tuple(observers)
        self._stopped = False
        self._running: Supervisor | Worker | Crew | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await self._idle.wait()

    @property
    def rules(self) -> Rules:
        """The rules that this projector folds by."""
        return self._parts.rules

    async def init(self, *, shards: int | None = None, distribute: bool = False) -> bool:
        """Migrate the database, and create the stream if it is missing; return whether it was created.

        If changes are published, a stream for them is created as well, unless there is one.

        Args:
            shards: divide the endpoints into this many shards, unless they already are.
            distribute: distribute the tables of endpoints over the workers of Citus, unless they already are.

        Raises:
            ProjectorRunningError: neither is possible while a projector is running.
            RebuildRunningError: neither is possible during a rebuild, a verification or a retry of dead letters.
            SettingError: changes have to be published before the number of shards can change,
                but the settings turn publishing off.
            EventsLostError: a shard has not folded events that have left the stream.
            NotDistributableError: Citus cannot distribute the tables as they are.
        """
        from projector.storage import distribution, migrate
        from projector.stream.provision import create_changes_stream, create_stream

        if distribute:
            await distribution.check_server(self._database_url)
        await migrate.upgrade(self._database_url)
        if distribute:
            await distribution.distribute(self._database_url)
        else:
            await distribution.keep_up(self._database_url)
        created = await create_stream(self._parts.broker, self._stream)
        if self._publish is not None and self._retention is not None:
            self.changes_stream = await create_changes_stream(
                self._parts.broker, self._publish, events=self._stream, keep=self._retention
            )
        if shards is not None:
            await self._divide(shards)
        return created

    async def _divide(self, shards: int) -> None:
        """Change the number of shards, unless it is this one already."""
        from projector.storage import division
        from projector.stream.consumers import durable_name
        from projector.stream.provision import delete_consumers

        before = await division.count(self._database_url)
        if before == shards:
            return
        async with division.opened(self._database_url, shards) as known:
            await self._parts.division(Observers(self._observers)).run(known, shards)
        superfluous = [durable_name(self._consumer, number) for number in range(shards, before)]
        await delete_consumers(self._parts.broker, self._stream, superfluous)

    async def run(self, *, until_caught_up: bool = False, accept_gap: bool = False) -> None:
        """Follow the stream and keep `endpoint_state` up to date, until `stop` is called.

        Args:
            until_caught_up: return at the end of the stream.
            accept_gap: continue even if events left the stream before they were folded.

        Raises:
            FatalError: continuing would be wrong or pointless.
            RuntimeError: this projector is running already.
        """
        await self._run(partial(self._follow, accept_gap=accept_gap, until_caught_up=until_caught_up))

    async def run_crew(self, crew: Crew) -> None:
        """For the command line; not public. Keep worker processes running, and monitor them, until `stop` or their end.

        Raises:
            WorkerFailedError: one ended with an error, or keeps dying soon after its start.
            RuntimeError: this projector is running already.
        """

        async def run(observer: Observer) -> None:
            self._running = crew
            if not self._stopped:
                await crew.run(observer)

        await self._run(run)

    async def _run(self, work: Callable[[Observer], Awaitable[None]]) -> None:
        """Monitor the work of a daemon until it ends."""
        if not self._idle.is_set():
            raise RuntimeError("this projector is running already")
        self._idle.clear()
        try:
            monitor = self._parts.monitor(
                Observers(self._observers),
                heartbeat_period_s=self._heartbeat_period_s,
                sample_period_s=self._sample_period_s,
            )
            async with monitor or nullcontext():
                await work(Observers((*self._observers, *(monitor.observers if monitor else ()))))
        finally:
            self._running = None
            self._idle.set()

    async def _follow(self, observer: Observer, *, accept_gap: bool, until_caught_up: bool) -> None:
        """Fold the events of all endpoints or, as a worker, those of some shards if the database has several."""
        supervise = partial(self._parts.supervisor, observer)
        start: Callable[..., Supervisor | Worker] = supervise
        while not self._stopped:
            self._running = following = start(accept_gap=accept_gap, until_caught_up=until_caught_up)
            try:
                await following.run()
            except ShardsChangedError as error:
                start = supervise if error.found == 1 else partial(self._parts.worker, observer, shards=error.found)
            else:
                return

    def stop(self) -> None:
        """Make `run` finish the current batch and return; a stopped projector does not run again."""
        self._stopped = True
        if self._running is not None:
            self._running.stop()

    async def rebuild(self, *, accept_trimmed: bool = False, progress: Progress | None = None) -> Report:
        """Replay the stream, and change the rows of `endpoint_state` that differ from what it implies.

        Args:
            accept_trimmed: if the beginning of the stream is gone, take its state from the table.
            progress: called with the position reached and the position to reach.

        Raises:
            RebuildRunningError: another rebuild or verification, or a retry of dead letters, is in progress.
            StreamTrimmedError: the beginning of the stream is gone.
        """
        return await self._replay(apply=True, accept_trimmed=accept_trimmed, progress=progress)

    async def verify(
        self,
        *,
        accept_trimmed: bool = False,
        show: int = 0,
        endpoint_id: str | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Replay the stream, and compare what it implies with `endpoint_state`.

        Args:
            accept_trimmed: as for `rebuild`.
            show: how many of the rows that differ to return.
            endpoint_id: return the row of this endpoint and the messages about it instead.
            progress: as for `rebuild`.

        Raises:
            RebuildRunningError: another rebuild or verification, or a retry of dead letters, is in progress.
            StreamTrimmedError: the beginning of the stream is gone.
        """
        return await self._replay(
            apply=False, accept_trimmed=accept_trimmed, show=show, endpoint_id=endpoint_id, progress=progress
        )

    async def status(self) -> Status:
        """Return how far the projection is, and what needs attention."""
        from projector.app.status import status
        from projector.queries import probe

        async with self._parts.open_view() as view:
            return await status(
                self._stream,
                view,
                partial(probe.summary, self._database_url, self._stream, publish=self._publish),
                rules_version=self.rules.version,
            )

    async def explain(
        self,
        endpoint_id: str,
        *,
        at: datetime | None = None,
        events: int | None = 20,
        replay: bool = False,
        progress: Progress | None = None,
    ) -> Explanation:
        """Return the event behind each column of an endpoint, and what came of its latest events.

        The columns are explained from the registers of the endpoint, and the events are those of the log of changes.

        Args:
            endpoint_id: the endpoint.
            at: explain the columns as they were at this moment (UTC unless it has an offset).
            events: how many of the latest events to return; None: all that are known.
            replay: read the stream instead of the database, and fold this endpoint alone.
            progress: called in a replay, as for `rebuild`.

        Raises:
            NoEndpointError: there is no such endpoint.
            MomentUnknownError: the log of changes does not go back to the moment.
        """
        from projector.app.explain import Scope, explain
        from projector.queries import explanation
        from projector.stream.protocol import event_names

        scope = Scope(None if at is None else _unix_ms(at), events)
        if replay:
            from projector.app.retrace import Retrace

            async with self._parts.open_replay() as source:
                retrace = Retrace(source, self._parts.codec, endpoint_id, scope, progress or (lambda *_: None))
                return await retrace.run(event_names(self.rules.revision))
        async with explanation.opened(self._database_url) as records, self._parts.open_look() as look:
            return await explain(records, endpoint_id, event_names, scope=scope, look=look)

    async def wait(self, position: int, *, timeout_s: float | None = None) -> Waited:
        """Return as soon as everything up to a position is folded and can be read, or the timeout is over."""
        from projector.app.waiting import Waited, wait_for

        probe = self._parts.probe("wait")
        try:
            await probe.open()
            found = await wait_for(position, probe.position, timeout_s=timeout_s)
            reached = found >= position
            return Waited(reached, found, None if reached else (await probe.summary()).active)
        finally:
            await probe.close()

    async def doctor(self, *, nats_monitoring: str | None = None) -> Examination:
        """Inspect NATS and Postgres without changing anything, and return what is wrong with them.

        Args:
            nats_monitoring: URL of the monitoring endpoint of NATS.
        """
        from projector.doctor.examination import examine
        from projector.queries.inspection import inspect as inspect_database
        from projector.stream.inspection import Wanted
        from projector.stream.inspection import inspect as inspect_broker

        wanted = Wanted(
            stream=self._stream,
            consumer=self._consumer,
            originators=self._originators,
            revision=self._parts.revision,
            publish=self._publish,
        )
        codecs = self._parts.codecs()
        return await examine(
            partial(inspect_broker, self._parts.broker, wanted, codecs, monitoring=nats_monitoring),
            partial(
                inspect_database,
                self._database_url,
                logs_changes=self._retention is not None,
                publish=self._publish,
            ),
            stream=self._stream,
            rules=self.rules,
        )

    async def census(self) -> Census:
        """Count the endpoints by status and by version."""
        from projector.queries import probe

        return await probe.census(self._database_url)

    async def dead_letters(self) -> list[ListedDeadLetter]:
        """Return the dead letters that are neither resolved nor discarded, in stream order."""
        from projector.storage import dead_letters

        return await dead_letters.listed(self._database_url, self._stream)

    async def dead_letter(self, position: int) -> tuple[StoredDeadLetter, dict[str, Any]]:
        """Return a dead letter, and the fields of its payload that can be read."""
        from projector.storage import dead_letters

        letter = await dead_letters.shown(self._database_url, self._stream, position)
        return letter, self._parts.codec.explain(letter.subject, letter.payload)

    async def retry_dead_letters(self, selection: Selection) -> AsyncGenerator[Retried, None]:
        """Fold dead letters, each in a transaction of its own, and yield the outcome of each.

        Raises:
            NoDeadLetterError: a selected position has no parked dead letter; nothing was changed.
            RebuildRunningError: a rebuild, a verification or another retry is in progress.
            RetryTooEarlyError: a shard has not reached the position of a dead letter that another one has parked.
        """
        from projector.app.dead_letters import retry
        from projector.storage import dead_letters

        store = dead_letters.Retry(self._database_url, self._stream, logs_changes=self._retention is not None)
        try:
            await store.open()
            async for retried in retry(self._parts.codec, store, selection, stream=self._stream, rules=self.rules):
                yield retried
        finally:
            await store.close()

    async def discard_dead_letters(self, selection: Selection, note: str) -> int:
        """Close dead letters that will never be folded, and return how many; the note says why."""
        from projector.storage import dead_letters

        return await dead_letters.discard(self._database_url, self._stream, selection, note)

    async def sql(self, statement: str) -> Answer:
        """Run one statement in a read-only transaction.

        Raises:
            QueryRefusedError: Postgres rejects the statement.
        """
        from projector.queries.statement import query

        return await query(self._database_url, statement)

    async def _replay(
        self,
        *,
        apply: bool,
        accept_trimmed: bool,
        progress: Progress | None,
        show: int = 0,
        endpoint_id: str | None = None,
    ) -> Report:
        from projector.app.rebuild import Rebuild, RebuildOptions
        from projector.storage.staging import Staging

        purpose = "rebuild" if apply else "verify"
        staging = Staging(self._database_url, purpose, logs_changes=self._retention is not None)
        options = RebuildOptions(
            rules=self.rules,
            stream=self._stream,
            apply=apply,
            accept_trimmed=accept_trimmed,
            show=show,
            endpoint_id=endpoint_id,
        )
        try:
            await staging.open()
            return await Rebuild(
                self._parts.codec, self._parts.open_replay, staging, options, progress or (lambda *_: None)
            ).run()
        finally:
            await staging.close()


def _unix_ms(moment: datetime) -> int:
    from datetime import UTC, datetime, timedelta

    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
