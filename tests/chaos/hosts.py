"""Hosts that die: `python -m tests.chaos.hosts --kills 20`.

Two hosts run `projector run --workers 2` on a projection with several shards, while events come at a constant rate.
Every two seconds one host is killed with all of its processes, and started again. In the end the table has to be
what the stream implies, by the model and by `verify`; the run prints how long some shard had no leader.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.trial import AWAY, Trial, trial
from tests.chaos.world import World

_SAMPLE_S = 0.05
_HOSTS = 2
_WORKERS = 2
_LED = """
SELECT count(*) FROM projector_status WHERE active
"""


class Host:
    """A machine: one command and its workers, in a process group of their own."""

    def __init__(self, number: int, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._log = folder / f"host-{number}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "projector", "run", "--workers", str(_WORKERS)),
                env=os.environ | self._environment,
                stderr=log,
                start_new_session=True,
            )

    async def kill(self) -> None:
        """Kill every process of the host at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


@dataclass
class Seen:
    """What was seen while hosts died."""

    leaderless_s: list[float] = field(default_factory=list)
    """From the moment when a shard had no leader until all had one."""
    stalled_s: list[float] = field(default_factory=list)
    """For how long the lowest position did not move."""

    async def watch(self, made: Trial) -> None:
        """Note how many shards have a leader, and when the lowest position moves."""
        free_since: float | None = None
        moved_at, position = time.monotonic(), 0
        while True:
            with suppress(*AWAY):
                ((led,),) = await made.ask(_LED)
                now, reached = time.monotonic(), await made.position()
                if reached > position:
                    self.stalled_s.append(now - moved_at)
                    moved_at, position = now, reached
                if led == made.shards and free_since is not None:
                    self.leaderless_s.append(now - free_since)
                    free_since = None
                elif led < made.shards and free_since is None:
                    free_since = now
            await asyncio.sleep(_SAMPLE_S)


@asynccontextmanager
async def _hosts(made: Trial) -> AsyncIterator[list[Host]]:
    environment = made.daemons[0].environment | made.direct | {"PROJECTOR_HTTP": "off"}
    hosts = [Host(number, environment, made.world.folder) for number in range(_HOSTS)]
    try:
        for host in hosts:
            await host.start()
        yield hosts
    finally:
        for host in hosts:
            await host.kill()


async def _suffer(options: argparse.Namespace) -> tuple[Seen, list[str], int]:
    random, seen = Random(options.seed), Seen()  # noqa: S311 - it can be repeated
    async with (
        World() as world,
        trial(world, options.seed, shards=options.shards, per_second=options.rate) as made,
        _hosts(made) as hosts,
    ):
        await made.progress(1)
        watch = asyncio.create_task(seen.watch(made))
        for number in range(options.kills):
            await asyncio.sleep(options.every)
            host = random.choice(hosts)
            await host.kill()
            await host.start()
            sys.stderr.write(f"{number + 1} of {options.kills}: {made.published} events\n")
        await asyncio.sleep(options.every)
        watch.cancel()
        for host in hosts:
            await host.kill()
        await made.catch_up()
        wrong = await made.verdict()
        await made.projector("verify")
        return seen, wrong, made.published


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every", type=float, default=2, help="seconds from one kill to the next")
    parser.add_argument("--rate", type=int, default=2500, help="events per second")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seen, wrong, published = asyncio.run(_suffer(options))
    sys.stdout.write(
        f"{options.kills} hosts killed, {published} events, {options.shards} shards; "
        f"without a leader for at most {max(seen.leaderless_s, default=0):.1f} s, "
        f"the lowest position stood still for at most {max(seen.stalled_s, default=0):.1f} s\n"
        + "".join(f"  {line}\n" for line in wrong)
        + ("" if wrong else "equal to the model; verify: no difference\n")
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
