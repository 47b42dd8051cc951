"""Compares tables that Citus distributes over two workers with a local one: `python -m benchmarks.citus`.

It needs a Postgres with the extension (see `tests.support.citus`), so it is in no round.
All nodes share the machine: the processor time says what distribution costs, and nothing says what it gains.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

from benchmarks.backlog import STREAM, publish
from benchmarks.process import Program, Sample, measure
from benchmarks.servers import POSTGRES_SETTINGS, Nats, cpu_s_with_children, execute
from benchmarks.workloads import steady
from projector.dev.embedded import EmbeddedPostgres
from tests.support import citus

# Short enough for a socket, and open to the user that Postgres becomes under root.
_PARENT = Path("/tmp")  # noqa: S108 - the folder in it is made by tempfile
_SETTINGS = {**POSTGRES_SETTINGS, **citus.NEEDED, "shared_buffers": "256MB"}

_names = (f"copy_{number}" for number in count(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A coordinator, its workers, and a stream."""

    nodes: list[EmbeddedPostgres]
    nats: Nats
    no_settings: Path

    def measure(self, shards: int, events: int) -> Sample:
        """Fold the stream into new tables, distributed in a number of shards or local (0), and verify them.

        Raises:
            ProgramError: the tables are not what the stream implies, or the daemon failed.
        """
        url = asyncio.run(citus.create_database(self.nodes[0], name := next(_names)))
        env = {
            "PROJECTOR_NATS_URL": self.nats.url,
            "PROJECTOR_DATABASE_URL": url,
            "PROJECTOR_CONFIG": str(self.no_settings),
            "PROJECTOR_CONSUMER": name,
            "PROJECTOR_HTTP": "off",
        }
        if shards:
            execute(url, f"ALTER DATABASE {name} SET citus.shard_count = {shards}")
        _run("init", *(["--distribute"] if shards else []), env=env)
        meters = {"postgres": self._cpu_s, "nats": self.nats.cpu_s}
        sample = measure("projector", "run", "--until-caught-up", events=events, meters=meters, env=env)
        _run("verify", env=env)
        return sample

    def _cpu_s(self) -> float:
        return sum(cpu_s_with_children(psutil.Process(node.pid)) for node in self.nodes)


def main() -> None:
    """Measure, and print a line of JSON for each table of each round."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the servers are ended on the way out
    parser = argparse.ArgumentParser(prog="python -m benchmarks.citus", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--endpoints", type=int, default=100_000)
    parser.add_argument("--shards", type=int, nargs="+", default=(8, 32), help="of the distributed tables")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    workload = steady("citus", endpoints=options.endpoints, preload=0, backlog=options.events)
    with _started() as cluster:
        _run("init", env={"PROJECTOR_NATS_URL": cluster.nats.url, "PROJECTOR_DATABASE_URL": cluster.nodes[0].url})
        events = asyncio.run(publish(cluster.nats.url, workload.backlog))
        for number in range(1, options.rounds + 1):
            for shards in (0, *options.shards):
                table = f"{shards} shards" if shards else "local"
                print(json.dumps({"round": number, "table": table, **cluster.measure(shards, events)}), flush=True)


@contextmanager
def _started() -> Iterator[Cluster]:
    with (
        tempfile.TemporaryDirectory(prefix="pr-bench-", dir=_PARENT) as name,
        citus.cluster_in(Path(name), _SETTINGS) as nodes,
        Nats(Path(name) / "nats") as nats,
    ):
        no_settings = Path(name) / "projector.toml"
        no_settings.touch()
        yield Cluster(nodes=nodes, nats=nats, no_settings=no_settings)


def _run(*arguments: str, env: Mapping[str, str]) -> None:
    with Program("projector", *arguments, env={"PROJECTOR_STREAM": STREAM, **env}) as program:
        program.wait()


if __name__ == "__main__":
    main()
