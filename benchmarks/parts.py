"""The parts of the suite: each yields, for one round, its cases with a sample of each."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import cycle, islice

from benchmarks.backlog import NO_ROWS, NOTHING_FOLDED, Backlog, prepare
from benchmarks.latency import Pace, measure_latency
from benchmarks.onlooker import onlooker
from benchmarks.plan import Plan
from benchmarks.process import Sample
from benchmarks.results import (
    ALONE,
    AMONG_FOREIGN,
    EXECUTEMANY,
    FASTSTREAM,
    LATENCY,
    LIVE,
    LIVE_NO_ROWS,
    LIVE_WHOLE,
    LOAD_AND_WRITE,
    LOGGED,
    LOGGED_AND_PUBLISHED,
    ORM,
    PUBLISHED,
    PULL,
    PULL_AND_DECODE,
    REBUILD,
    REBUILD_EQUAL,
    SOUND,
    SPOILED,
    UNLOGGED,
    UNWATCHED,
    WATCHED,
    WRITE,
    Case,
    growth_of_endpoints,
    revision_of,
    shards_of,
)
from benchmarks.servers import Servers, ask
from benchmarks.workloads import UNFOLDABLE, Workload, among_foreign, connects, disconnects, metadata, spoiled, steady
from projector.stream.protocol import REVISIONS

_ENDLESS = 2**62

# Positions, and the registers that hold them, differ where other messages stand in between.
_ROWS_WITHOUT_POSITIONS = """
SELECT md5(string_agg(row::text, '|' ORDER BY endpoint_id)) FROM (
    SELECT endpoint_id, connectivity_status, connectivity_changed_at, connected_at, disconnected_at,
           connected_originator, connected_replica, app_version, app_version_changed_at, previous_app_version,
           registered_at, metadata, metadata_changed_at, config_status, config_available_id, config_available_at,
           config_applied_id, config_applied_at, config_pending_id, last_event_at
    FROM endpoint_state
) AS row
"""
_BYTES_PER_CHANGE = """
SELECT sum(pg_total_relation_size(relid)) / (SELECT count(*) FROM endpoint_change)
FROM pg_partition_tree('endpoint_change')
"""
_PARKED = """
SELECT coalesce(json_object_agg(reason, count), '{}')
FROM (SELECT reason, count(*) FROM dead_letter GROUP BY reason) AS reasons
"""

Samples = Iterator[tuple[Case, Sample]]


class Parts:
    """Everything that can be measured; what a part works on is prepared when it is first needed."""

    def __init__(self, servers: Servers, plan: Plan) -> None:
        """Remember what to measure: nothing is prepared yet."""
        self._servers = servers
        self._plan = plan

    @cached_property
    def _headline(self) -> Backlog:
        plan = self._plan
        workload = steady("headline", endpoints=plan.endpoints, preload=plan.preload, backlog=plan.backlog)
        return prepare(self._servers, workload)

    def limits(self) -> Samples:
        """Measure each part of the path alone."""
        with self._headline as backlog, backlog.database() as url:
            yield PULL, backlog.measure_program("benchmarks.limits", "pull", database_url=url)
            yield PULL_AND_DECODE, backlog.measure_program("benchmarks.limits", "decode", database_url=url)
            sample = backlog.measure_program("benchmarks.limits", "write", database_url=url)
            load_s, save_s, commit_s = (sample[name] for name in ("load_s", "save_s", "commit_s"))
            for case, seconds in ((WRITE, save_s + commit_s), (LOAD_AND_WRITE, load_s + save_s + commit_s)):
                yield (
                    case,
                    {
                        "per_second": backlog.events / seconds,
                        "seconds": seconds,
                        "load_s": load_s,
                        "save_s": save_s,
                        "commit_s": commit_s,
                        "foreign_cores": sample["foreign_cores"],
                    },
                )

    def ours(self) -> Samples:
        """Measure the daemon and the rebuild, as processes."""
        with self._headline as backlog:
            with backlog.database() as url:
                yield LIVE, backlog.measure_live(url)
            with backlog.database(NO_ROWS) as url:
                yield LIVE_NO_ROWS, backlog.measure_live(url)
            with backlog.database(NOTHING_FOLDED) as url:
                yield LIVE_WHOLE, backlog.measure_live(url, events=backlog.last)
            with backlog.database(NO_ROWS) as url:
                yield REBUILD, backlog.measure_rebuild(url)
                yield REBUILD_EQUAL, backlog.measure_rebuild(url)

    def monitoring(self) -> Samples:
        """Measure the daemon with everything that watches it and without, each going first once."""
        with self._headline as backlog:
            for case in (UNWATCHED, WATCHED, WATCHED, UNWATCHED):
                with backlog.database() as url:
                    if case is UNWATCHED:
                        yield case, backlog.measure_live(url)
                    else:
                        with onlooker() as http:
                            yield case, backlog.measure_live(url, http=http)

    def changes(self) -> Samples:
        """Measure the daemon without the log of changes, with it, and publishing it, then in the reverse order."""
        with self._headline as backlog:
            for case in (UNLOGGED, LOGGED, LOGGED_AND_PUBLISHED, LOGGED_AND_PUBLISHED, LOGGED, UNLOGGED):
                with backlog.database() as url:
                    sample = backlog.measure_live(
                        url,
                        changes="off" if case is UNLOGGED else "7d",
                        publish="bench" if case is LOGGED_AND_PUBLISHED else "off",
                    )
                    if case is LOGGED:
                        sample["bytes_per_change"] = float(ask(url, _BYTES_PER_CHANGE))
                    yield case, sample

    def shards(self) -> Samples:
        """Measure one process, and several that share the endpoints."""
        with self._headline as backlog:
            for shards, workers in self._plan.shards:
                with backlog.database() as url:
                    yield shards_of(shards, workers), backlog.measure_live(url, shards=shards, workers=workers)

    def peers(self) -> Samples:
        """Measure what people do today, on as much of the backlog as their speed allows."""
        plan = self._plan
        for case, module, messages in (
            (ORM, "benchmarks.peers.orm", plan.orm_messages),
            (FASTSTREAM, "benchmarks.peers.faststream_core", plan.faststream_messages),
            (EXECUTEMANY, "benchmarks.peers.executemany", plan.executemany_messages),
        ):
            with self._headline as backlog, backlog.database() as url:
                yield case, backlog.measure_program(module, database_url=url, messages=messages)

    def latency(self) -> Samples:
        """Measure how long readers wait for an event, and subscribers for its changes."""
        plan = self._plan
        with self._headline as backlog, backlog.database() as url:
            goes_on = steady("latency", endpoints=plan.endpoints, preload=0, backlog=_ENDLESS, later=2 * plan.backlog)
            for case in (LATENCY, PUBLISHED):
                yield (
                    case,
                    measure_latency(
                        backlog,
                        url,
                        goes_on.backlog,
                        Pace(plan.latency_rate, plan.latency_s),
                        published=case is PUBLISHED,
                    ),
                )

    def revisions(self) -> Samples:
        """Measure the daemon in each revision, and with connects of today's that name many endpoints."""
        for case, backlog in self._of_revisions:
            with backlog, backlog.database() as url:
                yield case, backlog.measure_live(url, events=backlog.events * backlog.changes_per_event)

    def foreign(self) -> Samples:
        """Measure the daemon where most of the stream is not ours, and make sure that none of that is delivered."""
        ours = self._plan.foreign_events
        for case, backlog in self._among_foreign:
            with backlog, backlog.database() as url:
                sample = backlog.measure_live(url, events=ours)
                assert sample["delivered"] == ours, f"{sample['delivered']} messages were delivered, {ours} are ours"
                yield case, sample

    def growth(self) -> Samples:
        """Measure the daemon and the rebuild as the workload grows in one respect."""
        for case, backlog in self._growing:
            with backlog, backlog.database() as url:
                yield case, backlog.measure_live(url, events=backlog.events * backlog.changes_per_event)
        for length, backlog in self._streams:
            with backlog, backlog.database() as url:
                yield Case("growth", f"live, stream of {length:,} events"), backlog.measure_live(url)
                yield Case("growth", f"rebuild, stream of {length:,} events"), backlog.measure_rebuild(url)

    def poison(self) -> Samples:
        """Measure the daemon where one message in many cannot be folded, and make sure of what came of each."""
        tables = []
        for case, backlog in self._poisoned:
            with backlog, backlog.database() as url:
                yield case, backlog.measure_live(url)
                tables.append(ask(url, _ROWS_WITHOUT_POSITIONS))
                parked = json.loads(ask(url, _PARKED))
        assert tables[0] == tables[1], "not every message that can be folded was"
        bad = self._plan.poison_messages // self._plan.poison_every
        expected = Counter(islice(cycle(UNFOLDABLE), bad))
        assert parked == expected, f"the daemon parked {parked}, not {expected}"

    @cached_property
    def _of_revisions(self) -> list[tuple[Case, Backlog]]:
        plan = self._plan
        workloads = [
            *(
                (
                    revision_of(revision),
                    steady(
                        revision,
                        endpoints=plan.endpoints,
                        preload=plan.preload,
                        backlog=plan.backlog,
                        revision=revision,
                    ),
                )
                for revision in REVISIONS
            ),
            *(
                (
                    Case("revisions", f"endpoints changed by connects of {size:,} each"),
                    connects(
                        f"{size} per connect",
                        endpoints=plan.endpoints,
                        per_event=size,
                        changes=plan.connect_changes,
                    ),
                )
                for size in plan.connect_sizes
            ),
        ]
        return [(case, prepare(self._servers, workload)) for case, workload in workloads]

    @cached_property
    def _among_foreign(self) -> list[tuple[Case, Backlog]]:
        plan = self._plan

        def ours() -> Workload:
            return steady("ours", endpoints=plan.endpoints, preload=0, backlog=plan.foreign_events)

        return [
            (ALONE, prepare(self._servers, ours())),
            (AMONG_FOREIGN, prepare(self._servers, among_foreign(ours(), every=plan.foreign_every))),
        ]

    @cached_property
    def _poisoned(self) -> list[tuple[Case, Backlog]]:
        plan = self._plan
        bad = plan.poison_messages // plan.poison_every

        def sound() -> Workload:
            return steady(
                "poison",
                endpoints=plan.endpoints,
                preload=plan.poison_preload,
                backlog=plan.poison_messages - bad,
            )

        return [
            (SOUND, prepare(self._servers, sound())),
            (SPOILED, prepare(self._servers, spoiled(sound(), every=plan.poison_every))),
        ]

    @cached_property
    def _growing(self) -> list[tuple[Case, Backlog]]:
        plan = self._plan
        workloads = [
            *(
                (
                    growth_of_endpoints(endpoints),
                    steady(
                        f"{endpoints} endpoints",
                        endpoints=endpoints,
                        preload=plan.growth_preload,
                        backlog=plan.growth_backlog,
                    ),
                )
                for endpoints in plan.growth_endpoints
            ),
            *(
                (
                    Case("growth", f"endpoints changed by disconnects of {size:,} each"),
                    disconnects(
                        f"{size} per disconnect",
                        endpoints=plan.endpoints,
                        per_event=size,
                        changes=plan.disconnect_changes,
                    ),
                )
                for size in plan.disconnect_sizes
            ),
            *(
                (
                    Case("growth", f"metadata of {keys} keys"),
                    metadata(
                        f"{keys} keys",
                        endpoints=plan.metadata_endpoints,
                        keys=keys,
                        backlog=plan.metadata_backlog,
                    ),
                )
                for keys in plan.metadata_keys
            ),
        ]
        return [(case, prepare(self._servers, workload)) for case, workload in workloads]

    @cached_property
    def _streams(self) -> list[tuple[int, Backlog]]:
        return [
            (
                length,
                prepare(
                    self._servers,
                    steady(f"{length} events", endpoints=self._plan.endpoints, preload=0, backlog=length),
                ),
            )
            for length in self._plan.stream_lengths
        ]
