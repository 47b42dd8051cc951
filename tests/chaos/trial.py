"""One trial: a stream that is published, daemons that fold it while faults happen, and a verdict at the end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import asyncpg
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from projector import resources
from projector.domain.messages import Message
from projector.storage.locks import LEADER_LOCK
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.chaos.changes import RETENTION, Snapshots
from tests.chaos.reference import Tables, differences, independent_fold, plain_fold, stored
from tests.chaos.traffic import Traffic
from tests.chaos.world import Daemon, World

PATIENCE_S = 60.0
CONSUMER = "endpoint-state-projector"
AWAY = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    nats.errors.Error,
    TimeoutError,
)
"""The errors of a server that is down."""

_COMMAND_S = 120.0
_TURNS = 10
"""How many times to wait for a daemon to end while the checkpoint still moves; another daemon may be moving it."""
_POLL_S = 0.02
_BURSTS = (5, 10, 10, 20, 20, 150)
_READ_AT_ONCE = 1000
_NS_PER_MS = 1_000_000
_BATCH_SIZES = (1, 2, 7, 40, 300, 8000)

_LEADER = """
SELECT activity.application_name
FROM pg_locks AS lock JOIN pg_stat_activity AS activity USING (pid)
WHERE lock.locktype = 'advisory' AND lock.granted AND activity.datname = current_database()
  AND (lock.classid::bigint << 32 | lock.objid::bigint) = hashtextextended($1, 0)
"""


@dataclass(eq=False)
class Trial:
    """What the faults of one seed act on."""

    random: Random
    world: World
    database: str
    stream: str
    codec: Codec
    client: Client
    daemons: tuple[Daemon, Daemon]
    connection: asyncpg.Connection | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Serialises the use of the connection."""
    premature: list[str] = field(default_factory=list)
    """Acknowledgements that came before the commit."""
    damaged: set[str] = field(default_factory=set)
    """Endpoints whose rows were changed by hand."""
    tried_again: Counter[int] = field(default_factory=Counter)
    """Retries of each dead letter."""
    published: int = 0
    """Position of the last message that the broker said it had stored."""
    per_second: int = 300
    """Messages to publish per second."""
    shards: int = 1
    publishing: asyncio.Task[None] | None = None
    snapshots: Snapshots | None = None
    """What the log of changes is compared with; None if changes are not logged."""
    snapping: asyncio.Task[None] | None = None
    silenced: bool = False

    @property
    def direct(self) -> dict[str, str]:
        """How a daemon reaches the servers without a proxy."""
        return {
            "PROJECTOR_NATS_URL": self.world.nats.url,
            "PROJECTOR_DATABASE_URL": self.world.postgres.url_of(self.database),
        }

    def start(self, daemon: Daemon, *flags: str, **settings: object) -> None:
        """Start a daemon with a batch size that depends on the seed."""
        daemon.start(*flags, batch_size=self.random.choice(_BATCH_SIZES), **settings)

    async def active(self) -> Daemon:
        """Return the daemon that leads; start one if none runs."""
        if all(daemon.pid is None for daemon in self.daemons):
            self.start(self.random.choice(self.daemons))
        found: list[Daemon] = []

        async def one_works() -> bool:
            found[:] = [daemon for daemon in self.daemons if await self.is_led_by(daemon)]
            return bool(found)

        await self.until(one_works, "a daemon is active")
        return found[0]

    async def is_led_by(self, daemon: Daemon) -> bool:
        """Tell whether a daemon holds the leader's lock."""
        holders = [row[0] for row in await self.ask(_LEADER, LEADER_LOCK)]
        return any(holder.endswith(f":{daemon.pid}") for holder in holders)

    async def ask(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Ask the database directly."""
        async with self.turn:
            if self.connection is None or self.connection.is_closed():
                self.connection = await asyncpg.connect(self.world.postgres.url_of(self.database))
            try:
                return await self.connection.fetch(sql, *arguments)
            except BaseException:
                self.connection.terminate()  # its state is unknown, so it is not used again
                raise

    async def position(self) -> int:
        """Return the position through which every shard has folded."""
        ((position,),) = await self.ask("SELECT coalesce(min(position), 0) FROM projector_checkpoint")
        return int(position)

    async def witness(self, acknowledged: int) -> None:
        """Check an acknowledgement in transit: what it covers must already be committed."""
        with suppress(*AWAY):
            # Of several shards, this is the checkpoint of the one ahead of the others.
            ((position,),) = await self.ask("SELECT coalesce(max(position), 0) FROM projector_checkpoint")
            if position < acknowledged:
                self.premature.append(f"position {acknowledged} was acknowledged with the checkpoint at {position}")

    async def progress(self, count: int) -> None:
        """Wait until `count` more messages are folded, however slow the machine is."""
        reached = begin = await self._beyond(-1)
        while reached < begin + count:
            reached = await self._beyond(reached)

    async def publishes(self, count: int) -> None:
        """Wait until `count` more messages are published."""
        goal = self.published + count

        async def reached() -> bool:
            return self.published >= goal

        await self.until(reached, f"{count} more messages are published")

    async def happens(self, event: asyncio.Event, what: str) -> None:
        """Wait until a proxy has done what it was asked to do."""

        async def happened() -> bool:
            return event.is_set()

        await self.until(happened, what)

    async def logs(self, daemon: Daemon, event: str) -> None:
        """Wait for a line in the log of a daemon that runs."""
        await self.until(lambda: daemon.has_logged(event), f"daemon {daemon.name} logs {event!r}")
        daemon.check()

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait for a condition; a server that is away is waited for as well.

        Raises:
            AssertionError: it does not come true, or a daemon has ended.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(*AWAY):
                if await condition():
                    return
            # Only after the condition: what is waited for may be the very thing that ends a daemon.
            for daemon in self.daemons:
                daemon.check()
            if time.monotonic() > deadline:
                tails = "".join(f"\n{daemon.name}: {daemon.tail()}" for daemon in self.daemons)
                raise AssertionError(f"in {PATIENCE_S} s it was not so that {what}{tails}")
            await asyncio.sleep(_POLL_S)

    async def publish(self, traffic: Traffic) -> None:
        """Publish until `silence` is called, at a pace that does not depend on the faults."""
        jetstream = self.client.jetstream()
        due = time.monotonic()
        while not self.silenced:
            burst = traffic.take(self.random.choice(_BURSTS))
            for subject, payload in burst:
                while not self.silenced:  # a flag, since the client's requests may swallow a cancellation
                    with suppress(*AWAY):
                        # Stored twice is as good: the stream is what is compared with.
                        self.published = (await jetstream.publish(subject, payload, timeout=1)).seq
                        break
                    await asyncio.sleep(_POLL_S)
            due = max(due + len(burst) / self.per_second, time.monotonic() - 1)
            await asyncio.sleep(max(0, due - time.monotonic()))

    def log_changes(self) -> None:
        """Have the daemons log changes, and take snapshots to compare the log with."""
        for daemon in self.daemons:
            daemon.environment["PROJECTOR_CHANGES"] = RETENTION
        self.snapshots = Snapshots(lambda: asyncpg.connect(self.world.postgres.url_of(self.database)))
        self.snapping = asyncio.create_task(self.snapshots.take(AWAY))

    async def silence(self) -> None:
        """Stop publishing."""
        self.silenced = True
        if self.publishing is not None:
            await self.publishing

    async def messages(self) -> list[Message]:
        """Read the whole stream back, once every server answers: a leader may just have moved."""
        found: list[Message] = []

        async def is_read() -> bool:
            found[:] = await self._read_back()
            return True

        await self.until(is_read, "the stream can be read back")
        return found

    async def catch_up(self) -> None:
        """Stop publishing, and let a daemon fold the rest and end."""
        await self.silence()
        for daemon in self.daemons:
            await self.finish(daemon)
        daemon = self.random.choice(self.daemons)
        daemon.start("--until-caught-up")
        await self.finish(daemon, ask=False)

    async def finish(self, daemon: Daemon, *, ask: bool = True) -> None:
        """Let a daemon end by itself, or with SIGTERM; as long as the checkpoint moves, only the machine is slow.

        Raises:
            AssertionError: it did not, or not with exit code 0, or before it was asked.
        """
        if ask and daemon.pid is not None:
            await self.logs(daemon, "starting")  # before that, a signal ends it as any other process
            daemon.signal(signal.SIGTERM)
        position = -1
        for _ in range(_TURNS):
            if await daemon.ends() or (reached := await self.position()) <= position:
                break
            position = reached
        await daemon.finish()

    async def verdict(self) -> list[str]:
        """Return how the tables differ from what a single thread would have written."""
        messages = await self.messages()
        found = await stored(self.world.postgres.url_of(self.database), self.stream)
        expected = independent_fold(self.codec.revision.name, messages, self.tried_again, self.shards)
        wrong = [
            *(
                f"by its own rules: {line}"
                for line in differences(plain_fold(self.codec, messages, self.tried_again, self.shards), found)
            ),
            *(f"by the design: {line}" for line in differences(expected, found)),
            *await self._status(found, expected.position),
            *self.premature,
            *(await self.snapshots.verdict(self.damaged) if self.snapshots else ()),
        ]
        if messages[-1].position < self.published:
            wrong.append(
                f"the broker lost messages: it ends at {messages[-1].position}, and confirmed {self.published}"
            )
        return wrong

    async def projector(self, *command: str, expect: int = 0) -> str:
        """Run another command beside the daemons, and return what it prints.

        Raises:
            AssertionError: it ends with another exit code.
        """
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "projector", *command],
            env=os.environ | self.daemons[0].environment | self.direct,
            capture_output=True,
            check=False,
            text=True,
            timeout=_COMMAND_S,
        )
        if done.returncode != expect:
            raise AssertionError(f"projector {' '.join(command)} ended with code {done.returncode}: {done.stderr}")
        return done.stdout

    async def _beyond(self, position: int) -> int:
        """Wait until the checkpoint is after a position, and return it."""
        reached = position

        async def has_moved() -> bool:
            nonlocal reached
            reached = await self.position()
            return reached > position

        await self.until(has_moved, f"anything after position {position} is folded")
        return reached

    async def _read_back(self) -> list[Message]:
        jetstream = self.client.jetstream()
        last = (await jetstream.stream_info(self.stream)).state.last_seq
        reader = await jetstream.pull_subscribe("", stream=self.stream)
        found: list[Message] = []
        while not found or found[-1].position < last:
            for msg in await reader.fetch(_READ_AT_ONCE, timeout=10):
                tokens = msg.reply.split(".")
                found.append(Message(int(tokens[5]), int(tokens[7]) // _NS_PER_MS, msg.subject, msg.data, msg.headers))
                await msg.ack()
        await reader.unsubscribe()
        return found

    async def _status(self, found: Tables, last: int) -> list[str]:
        status = json.loads(await self.projector("status", "--json"))
        expected = {
            "checkpoint_seq": last,
            "lag_messages": 0,
            "endpoints": len(found.rows),
            "dead_letters": len(found.dead_letters),
            "skipped": found.skipped,
        }
        return [
            f"status says {name} {status[name]!r}, not {value!r}"
            for name, value in expected.items()
            if status[name] != value
        ]


@asynccontextmanager
async def trial(  # noqa: PLR0913 - each is something that a trial varies
    world: World,
    seed: int,
    *,
    revision: str = "kaa-2017-04",
    sound: bool = False,
    replicas: int = 1,
    per_second: int = 300,
    shards: int = 1,
) -> AsyncIterator[Trial]:
    """Set a trial up, publish while it lasts, and clear everything away; sound traffic can all be folded.

    Three in four seeds with one shard log changes.
    """
    random = Random(seed)  # noqa: S311 - a schedule that can be repeated is the point
    codec = Codec(revision, resources.folder("schemas"))
    traffic = Traffic(Random(seed), codec, now_ms=int(time.time() * 1000), sound=sound)  # noqa: S311 - as above
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(world.database())
        client = await stack.enter_async_context(world.client())
        stream = f"{database}_events"
        await client.jetstream().add_stream(name=stream, subjects=list(subjects.filters()), num_replicas=replicas)
        stack.push_async_callback(client.jetstream().delete_stream, stream)
        one, other = [await stack.enter_async_context(world.daemon(name, database, stream)) for name in ("A", "B")]
        made = Trial(random, world, database, stream, codec, client, (one, other), per_second=per_second, shards=shards)
        one.nats.witness = other.nats.witness = made.witness
        for daemon in made.daemons:
            daemon.environment["PROJECTOR_REVISION"] = revision
        if shards > 1:
            await made.projector("init", "--shards", str(shards))
        elif seed % 4:
            made.log_changes()
        made.publishing = asyncio.create_task(made.publish(traffic))
        try:
            yield made
        finally:
            await made.silence()
            if made.snapping is not None:
                made.snapping.cancel()
                await asyncio.gather(made.snapping, return_exceptions=True)
            if made.connection is not None:
                made.connection.terminate()
