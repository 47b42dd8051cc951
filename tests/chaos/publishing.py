"""Publishing over kills: `python -m tests.chaos.publishing --kills 50`.

Two daemons fold and publish one shard, or several with `--shards`, while events come at a constant rate.
A leader, NATS and Postgres are killed in random order, and the stream of the changes is full for a while in between.
Then the stream has to hold each applied change once, in the order of the log of its shard.
The lag is sampled throughout, to be compared with that of a run with `--publish off`.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import asyncpg
import nats.errors
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import Error as JetStreamError

from projector import resources
from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres
from projector.dev.fleet import Fleet, SimulatedEvent
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.support import servers
from tests.support.nats_client import lasting_client

STREAM = "EVENTS"
CHANGES = f"{STREAM}_CHANGES"
PREFIX = "soak"
_TICK_S = 0.05
_SAMPLE_S = 0.1
_CALM_AFTER_S = 2.0
"""Samples from a kill until this long after the folding has caught up are not counted among the calm ones."""
_RECOVERED_S = 180.0
_END_S = 120.0
_LOGGED = """
SELECT shard, commit_no, position, endpoint_id, facet FROM endpoint_change WHERE verdict IN ('applied', 'corrected')
ORDER BY shard, commit_no, coalesce(position, 0), endpoint_id COLLATE "C", facet COLLATE "C"
"""


class Lag(NamedTuple):
    at: float
    events: int
    """Stored and not folded."""


@dataclass
class Soak:
    """What happens, and what was seen."""

    nats: EmbeddedNats
    postgres: EmbeddedPostgres
    url: str
    options: argparse.Namespace
    folder: Path
    stored: int = 0
    """Events that NATS has acknowledged."""
    lags: list[Lag] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    """From each kill until the folding had caught up."""
    kills: Counter[str] = field(default_factory=Counter)
    daemons: list[asyncio.subprocess.Process] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The settings of the daemons."""
        return {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(resources.folder("schemas").parent),
            "PROJECTOR_NATS_URL": self.nats.url,
            "PROJECTOR_DATABASE_URL": self.url,
            "PROJECTOR_STREAM": STREAM,
            "PROJECTOR_HTTP": "off",
            "PROJECTOR_CHANGES": "7d",
            "PROJECTOR_PUBLISH": self.options.publish,
        }

    async def divide(self) -> None:
        """Divide the endpoints into shards."""
        command = ("-m", "projector", "init", "--shards", str(self.options.shards))
        init = await asyncio.create_subprocess_exec(
            *(sys.executable, *command), env=self.environment, cwd=self.folder, stdout=asyncio.subprocess.DEVNULL
        )
        if await init.wait():
            raise AssertionError("the endpoints cannot be divided")

    async def start_daemon(self) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            self.daemons.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "projector", "run"), env=self.environment, cwd=self.folder, stderr=log
                )
            )

    async def ask(self, sql: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url, timeout=2)
        try:
            return await connection.fetch(sql)
        finally:
            await connection.close()

    async def position(self) -> int:
        """Position through which every shard has folded; -1 while the database is away."""
        with suppress(OSError, asyncpg.PostgresError, TimeoutError):
            rows = await self.ask("SELECT min(position) FROM projector_checkpoint")
            return int(rows[0][0] or 0)
        return -1

    async def sample(self) -> None:
        """Note the lag again and again."""
        while True:
            stored, position = self.stored, await self.position()
            if position >= 0:
                self.lags.append(Lag(time.monotonic(), max(0, stored - position)))
            await asyncio.sleep(_SAMPLE_S)

    async def publish(self, client: Client, events: Iterator[SimulatedEvent]) -> None:
        """Publish at the rate; what is not acknowledged is published again, and stored once."""
        jetstream = client.jetstream(timeout=2)
        codec = Codec("kaa-2017-04", resources.folder("schemas"))
        number = 0
        due = time.monotonic()
        while True:
            batch = [
                (subjects.build(one.originator, one.event_type), codec.encode(one.event_type, one.record))
                for one in islice(events, round(self.options.rate * _TICK_S))
            ]
            while True:
                try:
                    futures = [
                        await jetstream.publish_async(subject, payload, headers={"Nats-Msg-Id": str(number + offset)})
                        for offset, (subject, payload) in enumerate(batch)
                    ]
                    async with asyncio.timeout(2):
                        answers = await asyncio.gather(*futures)
                except (nats.errors.Error, JetStreamError, TimeoutError):
                    await asyncio.sleep(0.1)
                    jetstream = client.jetstream(timeout=2)
                    continue
                self.stored = max(answer.seq for answer in answers)
                break
            number += len(batch)
            due = max(due + _TICK_S, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def kill(self, what: str) -> None:
        """Kill one of the three, start it again, and wait until the folding has caught up."""
        self.kills[what] += 1
        began = time.monotonic()
        if what == "daemon":
            leader = await self.leader()
            leader.kill()
            await leader.wait()
            self.daemons.remove(leader)
            await self.start_daemon()
        else:
            server = self.nats if what == "nats" else self.postgres
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await self.catch_up(began)

    async def catch_up(self, began: float) -> None:
        """Wait until the folding has caught up, and note how long that took."""
        while (position := await self.position()) < 0 or self.stored - position > self.options.rate / 2:
            if time.monotonic() > began + _RECOVERED_S:
                self.failures.append(f"not caught up after {_RECOVERED_S:g} s")
                break
            await asyncio.sleep(_SAMPLE_S)
        self.outages.append((began, time.monotonic()))

    async def leader(self) -> asyncio.subprocess.Process:
        """A daemon that leads; any daemon while none does."""
        with suppress(OSError, asyncpg.PostgresError, TimeoutError):
            rows = await self.ask(
                "SELECT pid, application_name, client_port FROM pg_stat_activity JOIN pg_locks USING (pid) "
                "WHERE locktype = 'advisory' AND granted AND application_name LIKE 'projector%'"
            )
            names = " ".join(row["application_name"] for row in rows)
            for daemon in self.daemons:
                if f":{daemon.pid}" in names:
                    return daemon
        return self.daemons[0]

    async def fill(self, client: Client) -> None:
        """Let the stream of the changes be full for a while."""
        jetstream = client.jetstream(timeout=2)
        config = (await jetstream.stream_info(CHANGES)).config
        full = (await jetstream.stream_info(CHANGES)).state.messages or 1
        await jetstream.update_stream(config.evolve(discard=DiscardPolicy.NEW, max_msgs=full))
        await asyncio.sleep(3)
        await jetstream.update_stream(config.evolve(discard=DiscardPolicy.OLD, max_msgs=-1))

    @property
    def calm(self) -> list[int]:
        """The lags that no kill explains, sorted."""
        return sorted(
            lag.events
            for lag in self.lags
            if not any(killed <= lag.at <= caught_up + _CALM_AFTER_S for killed, caught_up in self.outages)
        )


async def published(client: Client) -> list[tuple[Any, ...]]:
    """Return what identifies each change in the stream, in its order."""
    jetstream = client.jetstream(timeout=10)
    last = (await jetstream.stream_info(CHANGES)).state.last_seq
    subscription = await jetstream.pull_subscribe(f"{PREFIX}.>", stream=CHANGES)
    found: list[tuple[Any, ...]] = []
    while len(found) < last:
        for message in await subscription.fetch(min(1000, last - len(found)), timeout=10):
            one = json.loads(message.data)
            found.append((one["shard"], one["commit_no"], one["position"], one["endpoint_id"], one["facet"]))
            await message.ack()
    return found


@asynccontextmanager
async def staged(options: argparse.Namespace) -> AsyncIterator[tuple[Soak, Client]]:
    """Start servers and daemons."""
    with servers.server_folder() as folder:
        broker = servers.nats_in(folder / "nats")
        postgres = await asyncio.to_thread(servers.postgres_in, folder / "postgres")
        with broker, postgres:
            await servers.execute(postgres.url, f"CREATE DATABASE soak TEMPLATE {servers.MIGRATED}")
            soak = Soak(broker, postgres, postgres.url_of("soak"), options, folder)
            async with lasting_client(broker.url) as client:
                jetstream = client.jetstream()
                await jetstream.add_stream(StreamConfig(name=STREAM, subjects=list(subjects.filters())))
                await jetstream.add_stream(StreamConfig(name=CHANGES, subjects=[f"{PREFIX}.>"], duplicate_window=1))
                try:
                    if options.shards > 1:
                        await soak.divide()
                    for _ in range(2):
                        await soak.start_daemon()
                    yield soak, client
                finally:
                    for daemon in soak.daemons:
                        with suppress(ProcessLookupError):
                            daemon.kill()
                        await daemon.wait()


async def run(options: argparse.Namespace) -> Soak:
    """Kill as often as asked for, and compare."""
    random = Random(options.seed)  # noqa: S311 - it can be repeated
    fleet = Fleet(
        endpoints=options.endpoints, seed=options.seed, start_at=int(time.time() * 1000) - 10_000, interval_ms=0
    ).events()
    async with staged(options) as (soak, client):
        tasks = [asyncio.create_task(soak.publish(client, fleet)), asyncio.create_task(soak.sample())]
        began = time.monotonic()
        await asyncio.sleep(1)
        await soak.catch_up(began)  # the daemons start
        for number in range(options.kills):
            await asyncio.sleep(random.uniform(_CALM_AFTER_S, 2 * _CALM_AFTER_S))
            if options.publish != "off" and number % 5 == 4:
                await soak.fill(client)
            await soak.kill(random.choice(("daemon", "nats", "postgres")))
            sys.stderr.write(f"{number + 1} of {options.kills}: {soak.stored} events, {dict(soak.kills)}\n")
        await asyncio.sleep(options.calm)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        last = (await client.jetstream().stream_info(STREAM)).state.last_seq
        await _compare(soak, client, last)
    return soak


async def _compare(soak: Soak, client: Client, last: int) -> None:
    until = time.monotonic() + _END_S
    jetstream = client.jetstream(timeout=10)
    while time.monotonic() < until:
        expected = await soak.ask(_LOGGED) if await soak.position() >= last else []
        stored = (await jetstream.stream_info(CHANGES)).state.last_seq
        if soak.options.publish == "off" or (expected and stored >= len(expected)):
            break
        await asyncio.sleep(1)
    if soak.options.publish == "off":
        return
    changes = [tuple(row) for row in await soak.ask(_LOGGED)]
    found = await published(client)
    sys.stdout.write(f"{len(changes)} changes logged, {len(found)} messages in the stream\n")
    if missing := set(changes) - set(found):
        soak.failures.append(f"{len(missing)} changes were not published")
    if doubled := len(found) - len(set(found)):
        soak.failures.append(f"{doubled} changes were published more than once")
    if sorted(found, key=itemgetter(0)) != changes:
        soak.failures.append("the order of the stream is not that of the log of each shard")


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rate", type=int, default=500, help="events per second")
    parser.add_argument("--endpoints", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calm", type=float, default=20, help="seconds without a kill at the end")
    parser.add_argument("--publish", default=PREFIX, choices=[PREFIX, "off"])
    options = parser.parse_args()
    soak = asyncio.run(run(options))
    calm = soak.calm or [0]
    recovered = sorted(end - begin for begin, end in soak.outages[1:]) or [0.0]
    sys.stdout.write(
        f"publishing {options.publish}, {options.shards} shards: {options.kills} kills {dict(soak.kills)}, "
        f"{soak.stored} events at {options.rate}/s\n"
        f"lag of the folding without a kill: p50 {calm[len(calm) // 2]}, p99 {calm[len(calm) * 99 // 100]}, "
        f"largest {calm[-1]} events ({len(calm)} samples)\n"
        f"caught up after a kill: median {recovered[len(recovered) // 2]:.1f} s, longest {recovered[-1]:.1f} s\n"
        + "".join(f"FAILED: {failure}\n" for failure in soak.failures)
        + ("" if soak.failures or options.publish == "off" else "each change once, in the order of the log\n")
    )
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
