"""Mutated messages through the decoder by the million: `python -m tests.fuzz.fuzz --count 1000000`."""

import argparse
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from typing import NamedTuple

from tests.fuzz.mutator import TYPES, Mutator, check

_CHUNK = 20_000
_CRASHES_SHOWN = 10


class Chunk(NamedTuple):
    """What came of the messages of one seed."""

    seed: int
    outcomes: Counter[str]
    crashes: list[str]
    slowest_s: float
    slowest: str


def run(task: tuple[int, int, str]) -> Chunk:
    """Decode as many messages as asked for; they follow from a seed."""
    seed, count, revision = task
    mutator = Mutator(seed, revision)
    outcomes: Counter[str] = Counter()
    crashes: list[str] = []
    slowest_s, slowest = 0.0, ""
    for _ in range(count):
        message = mutator.message()
        began = time.process_time()
        try:
            outcomes[check(revision, message)] += 1
        except Exception:  # noqa: BLE001 - to find these is the point
            outcomes["CRASH"] += 1
            crashes.append(f"seed {seed}, {message!r}\n{traceback.format_exc()}")
        took_s = time.process_time() - began
        if took_s > slowest_s:
            slowest_s, slowest = took_s, f"{message.subject!r} {message.payload.hex()}"
    return Chunk(seed, outcomes, crashes[:_CRASHES_SHOWN], slowest_s, slowest)


def main() -> int:
    """Print how many messages were decoded, what came of them, and the slowest; return 1 if any was a crash."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first chunk; each has its own")
    parser.add_argument("--revision", choices=sorted(TYPES), default="kaa-2017-04")
    parser.add_argument("--jobs", type=int, default=2, help="how many chunks at a time")
    options = parser.parse_args()
    tasks = [
        (options.seed + number, min(_CHUNK, options.count - start), options.revision)
        for number, start in enumerate(range(0, options.count, _CHUNK))
    ]
    outcomes: Counter[str] = Counter()
    slowest = Chunk(0, outcomes, [], 0.0, "")
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for chunk in pool.imap_unordered(run, tasks):
            outcomes += chunk.outcomes
            slowest = max(slowest, chunk, key=lambda one: one.slowest_s)
            sys.stdout.write("".join(f"CRASH {crash}\n" for crash in chunk.crashes))
            sys.stdout.flush()
    sys.stdout.write(
        f"{outcomes.total()} messages from seed {options.seed} on in {time.monotonic() - began:.0f} s\n"
        + "".join(f"{count:>10} {outcome}\n" for outcome, count in outcomes.most_common())
        + f"{outcomes['CRASH']} crashes; the slowest took {slowest.slowest_s * 1000:.1f} ms: {slowest.slowest[:200]}\n"
    )
    return 1 if outcomes["CRASH"] else 0


if __name__ == "__main__":
    sys.exit(main())
