"""A stream with a backlog, and the database as it stood before it: published once, measured many times."""

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Self

import nats
from nats.aio.client import Client

from benchmarks.process import Meters, Program, Sample, measure
from benchmarks.program import Task
from benchmarks.servers import Nats, Servers, ask, execute
from benchmarks.workloads import Wire, Workload
from projector import resources
from projector.dev.fleet import DEFAULT_REVISION, SimulatedEvent
from projector.stream import subjects
from projector.stream.codec import Codec

STREAM = "KAA_ENDPOINT_EVENTS"
_IN_FLIGHT = 1_000  # the server buffers 10,000 unacknowledged messages of a connection, and drops more
_STORED_S = 60.0
_POLL_S = 0.01

NO_ROWS = "TRUNCATE endpoint_state"
NOTHING_FOLDED = "TRUNCATE endpoint_state, projector_checkpoint, dead_letter"

_consumers = (f"benchmark-{number}" for number in count(1))
_databases = (f"before_{number}" for number in count(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A stream in its own NATS server, which runs for the length of a `with` block."""

    servers: Servers
    nats: Nats
    template: str
    """Database in which everything before the backlog is folded."""
    after: int
    """Position of the last event before the backlog."""
    last: int
    changes_per_event: int
    revision: str

    def __enter__(self) -> Self:
        self.nats.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self.nats.__exit__(*failure)

    @property
    def events(self) -> int:
        """Number of events in the backlog."""
        return self.last - self.after

    @property
    def meters(self) -> Meters:
        """The CPU seconds of the servers."""
        return {"postgres": self.servers.postgres_cpu_s, "nats": self.nats.cpu_s}

    @contextmanager
    def database(self, *statements: str) -> Iterator[str]:
        """Yield the URL of a copy of the database before the backlog, after statements that change it."""
        with self.servers.copy(self.template, *statements) as url:
            yield url

    def settings(self, database_url: str) -> Mapping[str, str]:
        """Return the environment of the projector's command line, with a consumer that does not exist yet."""
        return {
            "PROJECTOR_NATS_URL": self.nats.url,
            "PROJECTOR_STREAM": STREAM,
            "PROJECTOR_CONSUMER": next(_consumers),
            "PROJECTOR_DATABASE_URL": database_url,
            "PROJECTOR_REVISION": self.revision,
            "PROJECTOR_CONFIG": str(self.servers.no_settings),
            "PROJECTOR_HTTP": "off",
        }

    def measure_program(self, module: str, *arguments: str, database_url: str, messages: int | None = None) -> Sample:
        """Measure a program of ours or a peer's on the backlog, or on its first `messages`."""
        events = self.events if messages is None else min(messages, self.events)
        task = Task(
            nats_url=self.nats.url,
            database_url=database_url,
            stream=STREAM,
            consumer=next(_consumers),
            after=self.after,
            messages=events,
        )
        return measure(module, *arguments, json.dumps(asdict(task)), events=events, meters=self.meters)

    def measure_live(  # noqa: PLR0913 - each is something that is compared
        self,
        database_url: str,
        *,
        events: int | None = None,
        http: str = "off",
        changes: str = "off",
        publish: str = "off",
        shards: int = 1,
        workers: int = 1,
    ) -> Sample:
        """Measure the daemon from the database's checkpoint to the end of the stream, `events` in all.

        `http` is where it answers, `changes` how long it keeps the log of changes, `publish` under which prefix it
        publishes them; `workers` processes fold `shards` shards.
        It is timed until everything is folded, and ends when everything is published.
        The sample also has the number of messages that NATS `delivered`.
        """
        settings = {
            **self.settings(database_url),
            "PROJECTOR_HTTP": http,
            "PROJECTOR_CHANGES": changes,
            "PROJECTOR_PUBLISH": publish,
        }
        if publish != "off" or shards > 1:
            with Program("projector", "init", "--shards", str(shards), env=settings) as program:
                program.wait()
        sample = measure(
            "projector",
            "run",
            "--until-caught-up",
            "--workers",
            str(workers),
            events=events or self.events,
            meters=self.meters,
            env=settings,
        )
        position = ask(database_url, "SELECT min(position) FROM projector_checkpoint")
        assert position == self.last, f"the daemon stopped at {position}, the stream ends at {self.last}"
        return {**sample, "delivered": asyncio.run(_delivered(self.nats.url, settings["PROJECTOR_CONSUMER"]))}

    def measure_rebuild(self, database_url: str) -> Sample:
        """Measure a rebuild, which replays the whole stream."""
        sample = measure("benchmarks.rebuild", events=self.last, meters=self.meters, env=self.settings(database_url))
        assert ask(database_url, "SELECT count(*) FROM endpoint_state"), "the rebuild left no rows behind"
        return sample

    def extended(self, last: int) -> "Backlog":
        """Return the same backlog, which now ends at a later position."""
        return replace(self, last=last)

    def following(self) -> "Backlog":
        """Return the same stream, with a backlog that begins at its end."""
        return replace(self, after=self.last)


def prepare(servers: Servers, workload: Workload) -> Backlog:
    """Publish a workload, and fold what comes before its backlog."""
    name = next(_databases)
    print(f"preparing {workload.name}", file=sys.stderr)
    url = servers.create_database(name)
    backlog = Backlog(
        servers=servers,
        nats=Nats(servers.folder / name),
        template=name,
        after=0,
        last=0,
        changes_per_event=workload.changes_per_event,
        revision=workload.revision,
    )
    with backlog:
        with Program("projector", "init", env=backlog.settings(url)) as program:
            program.wait()
        after = asyncio.run(publish(backlog.nats.url, workload.preload, workload.revision))
        if after:
            backlog.extended(after).measure_live(url)
            execute(url, "VACUUM (FREEZE, ANALYZE)")
        last = asyncio.run(publish(backlog.nats.url, workload.backlog, workload.revision))
    return replace(backlog, after=after, last=last)


async def publish(nats_url: str, events: Iterable[SimulatedEvent | Wire], revision: str = DEFAULT_REVISION) -> int:
    """Publish events and messages, and return the position of the last message when all are stored.

    Only every thousandth is published with an acknowledgement, which is waited for:
    the server takes the messages of a connection in their order.
    """
    codec = Codec(revision, resources.folder("schemas"))
    client: Client = await nats.connect(nats_url)
    try:
        jetstream = client.jetstream()
        published = (await jetstream.stream_info(STREAM)).state.last_seq
        for event in events:
            subject, payload = encoded(codec, event)
            published += 1
            if published % _IN_FLIGHT:
                await client.publish(subject, payload)
            else:
                await jetstream.publish(subject, payload, timeout=_STORED_S)
        await client.flush()
        async with asyncio.timeout(_STORED_S):
            while (await jetstream.stream_info(STREAM)).state.last_seq < published:  # noqa: ASYNC110 - only it can tell
                await asyncio.sleep(_POLL_S)
    finally:
        await client.close()
    return published


def encoded(codec: Codec, event: SimulatedEvent | Wire) -> Wire:
    """Return what is published."""
    if isinstance(event, Wire):
        return event
    return Wire(subjects.build(event.originator, event.event_type), codec.encode(event.event_type, event.record))


async def _delivered(nats_url: str, consumer: str) -> int:
    """Return how many messages NATS has delivered to a consumer, redeliveries included."""
    client: Client = await nats.connect(nats_url)
    try:
        info = await client.jetstream().consumer_info(STREAM, consumer)
    finally:
        await client.close()
    assert info.delivered is not None
    return int(info.delivered.consumer_seq)
