"""Chaos for one seed or for many: `python -m tests.chaos.soak --seeds 200`."""

import argparse
import asyncio
import multiprocessing
import sys
import time
import traceback
from typing import Any

from tests.chaos.schedule import FAULTS_PER_SEED, run, schedule
from tests.chaos.world import World


async def _work(queue: Any, results: Any, options: argparse.Namespace) -> None:
    """Run seeds until there are no more."""
    async with World() as world:
        while (seed := await asyncio.to_thread(queue.get)) is not None:
            began = time.monotonic()
            chosen = schedule(seed, count=options.faults)
            try:
                wrong = await run(world, seed, chosen, options.revision, options.shards)
            except Exception:  # noqa: BLE001 - any error fails the seed
                wrong = [traceback.format_exc()]
            results.put((seed, [fault.__name__ for fault in chosen], wrong, time.monotonic() - began))


def _worker(queue: Any, results: Any, options: argparse.Namespace) -> None:
    asyncio.run(_work(queue, results, options))


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> int:
    """Run seeds side by side; print each with its result; return 1 if any differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--revision", default="kaa-2017-04")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--faults", type=int, default=FAULTS_PER_SEED, help="faults for each seed")
    parser.add_argument("--jobs", type=int, default=2, help="how many seeds at a time")
    options = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    queue, results = context.Queue(), context.Queue()
    for seed in range(options.first, options.first + options.seeds):
        queue.put(seed)
    workers = [context.Process(target=_worker, args=(queue, results, options)) for _ in range(options.jobs)]
    for worker in workers:
        queue.put(None)
        worker.start()
    failed = 0
    for _ in range(options.seeds):
        seed, names, wrong, seconds = results.get()
        failed += bool(wrong)
        verdict = "DIFFERENT" if wrong else "equal"
        _say(f"seed {seed}: {verdict} after {', '.join(names)} ({seconds:.1f} s)", *(f"  {line}" for line in wrong))
    for worker in workers:
        worker.join()
    _say(f"{options.seeds} seeds, {failed} with differences")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
