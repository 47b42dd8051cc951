"""Grows the table to many endpoints, then changes them at random, and watches its size and its vacuum.

`python -m benchmarks.large`: run it by hand, it is part of no round.
10,000,000 endpoints take about an hour and 40 GB of disk.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.backlog import Backlog, prepare, publish
from benchmarks.servers import Servers, ask
from benchmarks.workloads import Workload, changes_at_random, connects_of_new
from projector.dev.fleet import SimulatedEvent

# Short enough for a socket, and open to the user that Postgres becomes under root.
_PARENT = Path("/tmp")  # noqa: S108 - the folder in it is made by tempfile
_WATCHED = """
SELECT jsonb_build_object(
    'position', position, 'rows', n_live_tup, 'dead_rows', n_dead_tup, 'updates', n_tup_upd, 'hot', n_tup_hot_upd,
    'autovacuums', autovacuum_count, 'table_mb', pg_table_size(relid) >> 20, 'indexes_mb', pg_indexes_size(relid) >> 20
)::text
FROM projector_checkpoint, pg_stat_user_tables WHERE relname = 'endpoint_state'
"""


def main() -> None:
    """Run the phases, and print a line of JSON for each sample and each phase."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the servers are ended on the way out
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=10_000_000)
    parser.add_argument("--changes", type=int, default=2_000_000, help="events of each round of changes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of changes")
    parser.add_argument("--every-s", type=float, default=30.0, help="seconds between two samples")
    parser.add_argument("--parent", type=Path, default=_PARENT, help="folder for the servers' data while it lasts")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="pr-bench-", dir=options.parent) as folder,
        Servers(Path(folder)) as servers,
    ):
        stream = prepare(servers, Workload(name="nothing", preload=(), backlog=()))
        with stream, stream.database() as url:
            new = connects_of_new(options.endpoints)
            stream = _fold("connects of new endpoints", stream, url, new, options.every_s)
            for number in range(1, options.rounds + 1):
                changes = changes_at_random(options.endpoints, options.changes, seed=number)
                stream = _fold(f"changes, round {number}", stream, url, changes, options.every_s)


def _fold(phase: str, stream: Backlog, database_url: str, events: Iterator[SimulatedEvent], every_s: float) -> Backlog:
    """Publish events at the end of the stream and fold them, with samples; return the longer stream."""
    stream = stream.following().extended(asyncio.run(publish(stream.nats.url, events, stream.revision)))
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(every_s):
            _print(phase, _watched(database_url))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        sample = stream.measure_live(database_url)
    finally:
        ended.set()
        watching.join()
    _print(phase, _watched(database_url) | {"sample": {name: round(value, 1) for name, value in sample.items()}})
    return stream


def _watched(database_url: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(database_url, _WATCHED) or "{}")
    return found


def _print(phase: str, facts: dict[str, Any]) -> None:
    print(json.dumps({"at": time.strftime("%H:%M:%S"), "phase": phase, **facts}), flush=True)


if __name__ == "__main__":
    main()
