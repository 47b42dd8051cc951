"""Outages at full length under load: `python -m tests.chaos.outages`, or `make outages`.

Each outage has servers of its own, and the daemon reaches them without a proxy.
The program prints how soon the daemon continued once the server was back,
how many messages it parked, and how the tables differ from a plain fold of the stream.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from projector.stream import subjects
from tests.chaos.cluster import SIZE, NatsCluster
from tests.chaos.reference import differences, stored
from tests.chaos.traffic import Traffic
from tests.chaos.trial import CONSUMER, Trial, trial
from tests.chaos.world import World
from tests.support import servers

RESUMED_S = 5.0
"""How soon the daemon has to fold again."""

_PER_SECOND = 1000
_ANSWER_S = 5
_STEP = 500
"""Messages folded between one step and the next."""


@dataclass(frozen=True)
class Scale:
    """How long and how much."""

    away_s: float = 60
    moves: int = 3
    """How many times each leader steps down."""
    events: int = 10_000
    """Folded before a stream is replaced, or after the dump that replaces a database."""


@dataclass
class Found:
    """The result of an outage."""

    resumed_s: list[float] = field(default_factory=list)
    """Seconds until a daemon that kept running folded again, for each interruption."""
    dead_letters: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        """Whether the daemon recovered in time and the tables are right."""
        return not self.wrong and not self.dead_letters and all(seconds <= RESUMED_S for seconds in self.resumed_s)


Outage = Callable[[Trial, Scale], Awaitable[Found]]


async def postgres_is_away(trial: Trial, scale: Scale) -> Found:
    """Stop Postgres, and start it again after a while."""
    await trial.progress(_STEP)
    resumed_s = await _restarted(trial, trial.world.postgres.stop, trial.world.postgres.start, scale.away_s)
    return await _judged(trial, [resumed_s])


async def nats_is_away(trial: Trial, scale: Scale) -> Found:
    """Stop NATS, and start it again after a while."""
    await trial.progress(_STEP)
    resumed_s = await _restarted(trial, trial.world.nats.stop, trial.world.nats.start, scale.away_s)
    return await _judged(trial, [resumed_s])


async def nats_is_restarted(trial: Trial, scale: Scale) -> Found:
    """Stop and kill NATS in turn, and start it again at once each time."""
    resumed_s = []
    for end in (trial.world.nats.stop, trial.world.nats.kill) * scale.moves:
        await trial.progress(_STEP)
        resumed_s.append(await _restarted(trial, end, trial.world.nats.start))
    return await _judged(trial, resumed_s)


async def leaders_move(trial: Trial, scale: Scale) -> Found:
    """Make the leaders of the stream and of the consumer step down."""
    resumed_s = []
    for leader, group in (
        (_stream_leader, f"STREAM.LEADER.STEPDOWN.{trial.stream}"),
        (_consumer_leader, f"CONSUMER.LEADER.STEPDOWN.{trial.stream}.{CONSUMER}"),
    ):
        for _ in range(scale.moves):
            await trial.progress(_STEP)
            await _steps_down(trial, leader, f"$JS.API.{group}")
            resumed_s.append(await _goes_on(trial))
    return await _judged(trial, resumed_s)


async def leader_is_killed(trial: Trial, scale: Scale) -> Found:
    """Kill the server of the stream's leader, and start it again; a cluster takes seconds to find another leader."""
    cluster = trial.world.nats
    assert isinstance(cluster, NatsCluster)
    resumed_s = []
    for _ in range(scale.moves):
        await trial.progress(_STEP)
        killed = await _led(trial, _stream_leader)
        await asyncio.to_thread(cluster.servers[killed].kill)
        for leader in (_stream_leader, _consumer_leader):
            await _is_led_again(trial, leader, killed)
        resumed_s.append(await _goes_on(trial))
        await trial.progress(_STEP)
        await asyncio.to_thread(cluster.servers[killed].start)
        resumed_s.append(await _goes_on(trial))
    return await _judged(trial, resumed_s)


async def database_is_restored(trial: Trial, scale: Scale) -> Found:
    """Replace the database with a dump that is older by many events."""
    daemon = trial.daemons[0]
    url = trial.world.postgres.url_of(trial.database)
    await trial.progress(_STEP)
    with tempfile.NamedTemporaryFile() as dump:
        await asyncio.to_thread(_run, "pg_dump", "--format=custom", f"--file={dump.name}", url)
        await trial.progress(scale.events)
        await trial.finish(daemon)
        reached = await trial.position()
        await trial.world.ask(f"DROP DATABASE {trial.database} WITH (FORCE)")
        await trial.world.ask(f"CREATE DATABASE {trial.database} TEMPLATE template0")
        await asyncio.to_thread(_run, "pg_restore", "--exit-on-error", f"--dbname={url}", dump.name)
    if trial.snapshots is not None:
        ((commits,),) = await trial.ask("SELECT commits FROM projector_checkpoint")
        trial.snapshots.forget_after(commits)
    older = reached - await trial.position()
    assert older >= scale.events, f"the dump is older by {older} events only"
    daemon.start()
    await trial.progress(_STEP)
    return await _judged(trial, [])


async def stream_is_created_again(trial: Trial, scale: Scale) -> Found:
    """Replace the stream with one of other events; nothing may be written from then on."""
    await trial.progress(scale.events)
    await trial.catch_up()
    url = trial.world.postgres.url_of(trial.database)
    before = await stored(url, trial.stream)
    jetstream = trial.client.jetstream()
    await jetstream.delete_stream(trial.stream)
    await jetstream.add_stream(name=trial.stream, subjects=list(subjects.filters()))
    others = Traffic(Random("others"), trial.codec, now_ms=int(time.time() * 1000), sound=True)  # noqa: S311 - can be repeated
    for subject, payload in others.take(before.position + _STEP):
        await jetstream.publish(subject, payload)
    await trial.projector("run", expect=3)
    return Found(wrong=differences(before, await stored(url, trial.stream)))


OUTAGES: tuple[Outage, ...] = (
    postgres_is_away,
    nats_is_away,
    nats_is_restarted,
    leaders_move,
    leader_is_killed,
    database_is_restored,
    stream_is_created_again,
)


async def suffer(outage: Outage, scale: Scale) -> Found:
    """Run one outage on its own servers."""
    clustered = outage in (leaders_move, leader_is_killed)
    async with (
        World(NatsCluster if clustered else servers.nats_in) as world,
        trial(world, seed=1, sound=True, replicas=SIZE if clustered else 1, per_second=_PER_SECOND) as made,
    ):
        for daemon in made.daemons:
            daemon.environment |= made.direct
        made.daemons[0].start()
        return await outage(made, scale)


async def _goes_on(trial: Trial) -> float:
    """Return how many seconds it takes until another message is folded."""
    began = time.monotonic()
    await trial.progress(1)
    return time.monotonic() - began


async def _restarted(trial: Trial, end: Callable[[], None], start: Callable[[], None], away_s: float = 0) -> float:
    """End a server and start it after a while; return after how many seconds the daemon folds again."""
    await asyncio.to_thread(end)
    await asyncio.sleep(away_s)
    await asyncio.to_thread(start)
    return await _goes_on(trial)


async def _stream_leader(trial: Trial) -> str:
    info = await trial.client.jetstream().stream_info(trial.stream)
    return (info.cluster and info.cluster.leader) or ""


async def _consumer_leader(trial: Trial) -> str:
    info = await trial.client.jetstream().consumer_info(trial.stream, CONSUMER)
    return (info.cluster and info.cluster.leader) or ""


async def _led(trial: Trial, leader: Callable[[Trial], Awaitable[str]]) -> str:
    """Return who leads, once the servers have elected one: on a busy machine they elect at any time."""
    found = ""

    async def is_led() -> bool:
        nonlocal found
        found = await leader(trial)
        return bool(found)

    await trial.until(is_led, "a server leads")
    return found


async def _steps_down(trial: Trial, leader: Callable[[Trial], Awaitable[str]], subject: str) -> None:
    """Make a leader step down, repeatedly if it is elected again, until another one leads."""
    before = await _led(trial, leader)

    async def is_another() -> bool:
        now = await leader(trial)
        if now == before:
            await trial.client.request(subject, timeout=_ANSWER_S)
        return now not in ("", before)

    await trial.until(is_another, f"another one than {before} leads")


async def _is_led_again(trial: Trial, leader: Callable[[Trial], Awaitable[str]], before: str) -> None:
    async def is_another() -> bool:
        return await leader(trial) not in ("", before)

    await trial.until(is_another, f"another one than {before} leads")


async def _judged(trial: Trial, resumed_s: list[float]) -> Found:
    """Let a daemon fold the rest, and compare."""
    await trial.catch_up()
    (parked,) = await trial.ask("SELECT count(*) FROM dead_letter")
    return Found(resumed_s, parked[0], await trial.verdict())


def _run(program: str, *arguments: str) -> None:
    """Run a program that comes with Postgres."""
    subprocess.run([servers.POSTGRES_BIN / program, *arguments], check=True)


async def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--away", type=float, default=Scale.away_s, help="seconds that a server is away")
    parser.add_argument("--only", action="append", choices=[outage.__name__ for outage in OUTAGES])
    options = parser.parse_args()
    failed = 0
    for outage in OUTAGES:
        if options.only and outage.__name__ not in options.only:
            continue
        try:
            found = await suffer(outage, Scale(away_s=options.away))
        except Exception:  # noqa: BLE001 - any error fails the outage
            found = Found(wrong=[traceback.format_exc()])
        failed += not found.is_fine
        resumed = ", ".join(f"{seconds:.1f}" for seconds in found.resumed_s)
        sys.stdout.write(
            f"{outage.__name__}: {'fine' if found.is_fine else 'FAILED'}; "
            f"{f'went on after {resumed} s; ' if resumed else ''}"
            f"{found.dead_letters} dead letters, {len(found.wrong)} differences\n"
            + "".join(f"  {line}\n" for line in found.wrong)
        )
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the daemons and servers are ended on the way out
    sys.exit(asyncio.run(_main()))
