"""The samples of a run, their medians, and the targets that they are held against."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from benchmarks.process import Sample


class Spread(NamedTuple):
    """The median of several rounds, and how far apart they are."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(median(values), min(values), max(values))


class Case(NamedTuple):
    """What a sample is of."""

    part: str
    name: str


class Results:
    """Samples by case, in the order in which the cases were first measured."""

    def __init__(self) -> None:
        self.samples: defaultdict[Case, list[Sample]] = defaultdict(list)

    def add(self, case: Case, sample: Sample) -> None:
        """Keep a sample."""
        self.samples[case].append(sample)

    def of(self, case: Case) -> Mapping[str, Spread]:
        """Return the spread of each figure of a case."""
        samples = self.samples[case]
        return {name: Spread.of([sample[name] for sample in samples]) for name in samples[0]}

    def ratio(self, one: Case, other: Case, name: str = "per_second") -> Spread | None:
        """Return a figure of one case divided by that of another: in each round, since the machine drifts."""
        if one not in self.samples or other not in self.samples:
            return None
        pairs = zip(self.samples[one], self.samples[other], strict=False)
        return Spread.of([above[name] / below[name] for above, below in pairs if below[name]] or [0.0])

    def figure(self, case: Case, name: str) -> Spread | None:
        """Return one figure of a case, if it was measured."""
        return self.of(case)[name] if case in self.samples else None


PULL = Case("limits", "pull")
PULL_AND_DECODE = Case("limits", "pull and decode")
WRITE = Case("limits", "write alone")
LOAD_AND_WRITE = Case("limits", "load and write")
LIVE = Case("ours", "live backlog")
LIVE_NO_ROWS = Case("ours", "live backlog into an empty table")
LIVE_WHOLE = Case("ours", "live, the whole stream into an empty table")
REBUILD = Case("ours", "rebuild, the whole stream into an empty table")
REBUILD_EQUAL = Case("ours", "rebuild, the whole stream over an equal table")
UNWATCHED = Case("monitoring", "live backlog, monitoring off")
WATCHED = Case("monitoring", "live backlog, monitoring on, queried every 5 s")
UNLOGGED = Case("changes", "live backlog, changes are not logged")
LOGGED = Case("changes", "live backlog, changes are logged")
LOGGED_AND_PUBLISHED = Case("changes", "live backlog, changes are logged and published")
LATENCY = Case("latency", "publish to visible")
PUBLISHED = Case("latency", "publish to published change")
SOUND = Case("poison", "live backlog, every message sound")
SPOILED = Case("poison", "live backlog, some messages cannot be folded")
ALONE = Case("foreign", "live backlog, only ours in the stream")
AMONG_FOREIGN = Case("foreign", "live backlog, most of the stream is foreign")
ORM = Case("peers", "nats-py fetch, SQLAlchemy ORM transaction per event")
FASTSTREAM = Case("peers", "FastStream, SQLAlchemy Core upsert per event")
EXECUTEMANY = Case("peers", "nats-py fetch, asyncpg executemany per batch")


def shards_of(shards: int, workers: int) -> Case:
    """Return the case of so many shards and processes."""
    return Case("shards", f"live backlog, shards: {shards}, processes: {workers}")


def revision_of(revision: str) -> Case:
    """Return the case of the headline's backlog in a revision."""
    return Case("revisions", f"live backlog, {revision}")


def growth_of_endpoints(endpoints: int) -> Case:
    """Return the case of a live backlog at a number of endpoints."""
    return Case("growth", f"live backlog, {endpoints:,} endpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A target, and what was measured."""

    name: str
    found: Spread
    wanted: float | None = None
    """None: the figure is only reported."""
    goal: float | None = None
    """To aim at, beyond what is wanted."""
    at_most: bool = False

    @property
    def kept(self) -> bool | None:
        """Whether the median is as wanted."""
        if self.wanted is None:
            return None
        return self.found.median <= self.wanted if self.at_most else self.found.median >= self.wanted


def claims(results: Results, growth_endpoints: Sequence[int]) -> list[Claim]:
    """Return the targets that the results can be checked against."""
    smallest, largest = min(growth_endpoints), max(growth_endpoints)
    few, many = growth_of_endpoints(smallest), growth_of_endpoints(largest)
    candidates = [
        ("live backlog / pull and decode", results.ratio(LIVE, PULL_AND_DECODE), 0.6, 0.8, False),
        (
            "the same in CPU time of the process",
            results.ratio(PULL_AND_DECODE, LIVE, "process_cpu_s_per_million"),
            None,
            None,
            False,
        ),
        ("live backlog / load and write", results.ratio(LIVE, LOAD_AND_WRITE), None, None, False),
        ("live backlog / ORM per event", results.ratio(LIVE, ORM), 60, None, False),
        ("live backlog / FastStream per event", results.ratio(LIVE, FASTSTREAM), None, None, False),
        ("live backlog / executemany per batch", results.ratio(LIVE, EXECUTEMANY), 3, 5, False),
        ("rebuild / live, the whole stream", results.ratio(REBUILD, LIVE_WHOLE), 1.3, None, False),
        ("rebuild / live backlog", results.ratio(REBUILD, LIVE), None, None, False),
        ("monitoring on / off", results.ratio(WATCHED, UNWATCHED), 0.97, None, False),
        (
            "the same in CPU time of the process",
            results.ratio(UNWATCHED, WATCHED, "process_cpu_s_per_million"),
            None,
            None,
            False,
        ),
        ("changes logged / not logged", results.ratio(LOGGED, UNLOGGED), 0.65, None, False),
        ("changes published / logged", results.ratio(LOGGED_AND_PUBLISHED, LOGGED), None, None, False),
        (
            "the same in CPU time of the process",
            results.ratio(UNLOGGED, LOGGED, "process_cpu_s_per_million"),
            None,
            None,
            False,
        ),
        ("bytes per change, indexes included", results.figure(LOGGED, "bytes_per_change"), None, None, True),
        ("publish to visible, p50 in ms", results.figure(LATENCY, "p50_ms"), 20, None, True),
        ("publish to visible, p99 in ms", results.figure(LATENCY, "p99_ms"), 100, None, True),
        ("rate with some messages that cannot be folded / without", results.ratio(SPOILED, SOUND), 0.9, None, False),
        ("rate among foreign messages / alone", results.ratio(AMONG_FOREIGN, ALONE), 0.7, None, False),
        (
            "the same in CPU time of the process",
            results.ratio(ALONE, AMONG_FOREIGN, "process_cpu_s_per_million"),
            None,
            None,
            False,
        ),
        (f"resident MB at {largest:,} endpoints", results.figure(many, "peak_mb"), 250, None, True),
        (f"rate at {largest:,} / at {smallest:,} endpoints", results.ratio(many, few), 0.6, None, False),
    ]
    return [
        Claim(name=name, found=found, wanted=wanted, goal=goal, at_most=at_most)
        for name, found, wanted, goal, at_most in candidates
        if found is not None
    ]
