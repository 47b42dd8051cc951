"""The Prometheus metrics: counters follow the notifications, gauges the samples."""

import re
from collections.abc import Iterator
from itertools import product
from math import nan
from time import time
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from projector.app.notifications import Active, ChangesLost, Committed, Notification, Published, Retrying
from projector.app.observers import Observer
from projector.app.projection import Outcome
from projector.app.stages import STAGES
from projector.domain.endpoint import EVENT_TYPES
from projector.domain.facets import Verdict
from projector.errors import DeliveryInterruptedError, PoisonReason, TransientError
from projector.monitoring.about import About
from projector.monitoring.counting import Counts
from projector.monitoring.health import Health
from projector.monitoring.liveness import Liveness
from projector.monitoring.sampler import Sampler

_BATCH_MESSAGES = (1, 10, 100, 500, 1000, 2000, 5000, 8000, 10_000, 20_000, 50_000)
_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_UNKNOWN = "unknown"
_VERDICTS_OF_MESSAGES = ("duplicate", "skipped", "parked")
"""Verdicts on whole messages, whose events are unknown or were counted before."""
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class _Registry(CollectorRegistry):
    """A registry without the `_created` series, which would double the number of series.

    The library can disable them only for a whole process.
    """

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class Metrics(Observer):
    """Counts notifications and samples, for Prometheus to scrape."""

    def __init__(self, about: About, liveness: Liveness, health: Health) -> None:
        """Start at zero; the process metrics are those of this process."""
        self._registry = registry = _Registry()
        ProcessCollector(registry=registry)
        self._failed = False

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"projector_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"projector_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"projector_{name}", what, labels, buckets=buckets, registry=registry)

        self._events = counter("events_total", "Events by type and verdict", "type", "verdict")
        self._parked = counter("parked_total", "Messages parked, by reason", "reason")
        self._batch_messages = histogram("batch_messages", "Messages per batch", _BATCH_MESSAGES)
        self._stage_seconds = histogram("stage_seconds", "Time that a batch spends in a stage", _STAGE_SECONDS, "stage")
        self._last_commit = gauge("last_commit_timestamp_seconds", "Time of the last commit of this process")
        self._sessions = counter("sessions_total", "Sessions begun and failed", "result")
        self._reconnects = counter("reconnects_total", "Sessions that began after a failed one")
        self._repositions = counter("repositions_total", "Sessions that failed because delivery was interrupted")
        self._errors = counter("transient_errors_total", "Transient errors, by kind", "kind")
        self._clock_skew = gauge(
            "clock_skew_seconds", "Stored time minus event time of the latest message", "originator", "replica"
        )

        self._lag_messages = gauge("lag_messages", "Matching messages that are not folded yet")
        self._lag_seconds = gauge("lag_seconds", "Age of the oldest message that is not folded yet")
        self._checkpoint = gauge("checkpoint_position", "Position of the checkpoint")
        self._shards = gauge("shards", "Shards of the projection")
        self._shards_without_leader = gauge("shards_without_leader", "Shards that no projector leads")
        self._first = gauge("stream_first_position", "Position of the stream's oldest message")
        self._last = gauge("stream_last_position", "Position of the stream's newest message")
        self._dead_letters = gauge("dead_letters", "Dead letters neither resolved nor discarded", "reason")
        self._rebuild_position = gauge("rebuild_position", "Position that a rebuild or verification has reached")
        self._rebuild_target = gauge("rebuild_target", "Position at which a rebuild or verification ends")
        self._endpoints = gauge("endpoints", "Endpoints by connectivity status", "status")
        self._published = counter("published_total", "Changes published")
        self._lost_commits = counter("publish_lost_commits_total", "Commits whose changes left the log unpublished")
        self._publish_lag_commits = gauge("publish_lag_commits", "Commits whose changes are not published yet")
        self._publish_lag_seconds = gauge("publish_lag_seconds", "Age of the oldest commit that is not published yet")
        self._publish_failing = gauge("publish_failing", "Whether an error keeps changes from being published")
        self._sample_errors = counter("sample_errors_total", "Samples of stream and database that failed")
        for unknown in (
            self._last_commit,
            self._lag_messages,
            self._lag_seconds,
            self._publish_lag_commits,
            self._publish_lag_seconds,
        ):
            unknown.set(nan)
        self._begin_at_zero()

        gauge("active", "Whether this daemon leads").set_function(lambda: liveness.doing.state == "active")
        gauge("standby", "Whether this daemon stands by").set_function(lambda: liveness.doing.state == "standby")
        gauge("healthy", "Whether the event loop is alive").set_function(lambda: health.healthy().met)
        gauge("ready", "Whether the table is fresh, or this daemon stands by").set_function(lambda: health.ready().met)
        gauge("heartbeat_timestamp_seconds", "Time of the last heartbeat").set_function(lambda: time() - liveness.age_s)
        gauge("info", "Version, protocol revision and rules version", "version", "revision", "rules").labels(
            about.version, about.revision, str(about.rules)
        ).set(1)

    def _begin_at_zero(self) -> None:
        """Create the series that are known beforehand at zero, so that a rate includes their first event."""
        for kind, verdict in product(EVENT_TYPES, Verdict):
            self._events.labels(snake_case(kind.__name__), verdict.value)
        for verdict_of_message in _VERDICTS_OF_MESSAGES:
            self._events.labels(_UNKNOWN, verdict_of_message)
        for reason in get_args(PoisonReason):
            self._parked.labels(reason)
        for stage in STAGES:
            self._stage_seconds.labels(stage)
        for result in ("begun", "failed"):
            self._sessions.labels(result)
        for error in TransientError.__subclasses__():
            self._errors.labels(error.__name__)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that an `Accept` header selects, and their content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def notify(self, notification: Notification) -> None:
        """Count a notification."""
        match notification:
            case Active():
                self._count_session()
            case Committed(outcome=outcome):
                self._count_batch(outcome)
            case Retrying(error=error):
                self._count_failure(error)
            case Published(changes=changes):
                self._published.inc(changes)
            case ChangesLost(commits=commits):
                self._lost_commits.inc(commits)

    def _count_session(self) -> None:
        self._sessions.labels("begun").inc()
        if self._failed:
            self._reconnects.inc()
        self._failed = False

    def _count_batch(self, outcome: Outcome) -> None:
        for (kind, verdict), count in outcome.verdicts.items():
            self._events.labels(snake_case(kind.__name__), verdict.value).inc(count)
        unread = outcome.duplicates, sum(outcome.skipped.values()), len(outcome.dead_letters)
        for verdict_of_message, count in zip(_VERDICTS_OF_MESSAGES, unread, strict=True):
            self._events.labels(_UNKNOWN, verdict_of_message).inc(count)
        for dead_letter in outcome.dead_letters:
            self._parked.labels(dead_letter.reason).inc()
        self._batch_messages.observe(outcome.messages)
        for stage, seconds in outcome.seconds.items():
            self._stage_seconds.labels(stage).observe(seconds)
        self._last_commit.set_to_current_time()

    def _count_failure(self, error: TransientError) -> None:
        self._failed = True
        self._sessions.labels("failed").inc()
        self._errors.labels(type(error).__name__).inc()
        if isinstance(error, DeliveryInterruptedError):
            self._repositions.inc()

    def note_skew(self, originator: str, replica: str, seconds: float) -> None:
        """Set how far the clock of a replica is behind that of NATS."""
        self._clock_skew.labels(originator, replica).set(seconds)

    def sampled(self, sampler: Sampler) -> None:
        """Set the gauges from the latest sample; an unknown lag is NaN."""
        if sampler.error is not None or sampler.latest is None:
            self._sample_errors.inc()
            self._lag_messages.set(nan)
            self._lag_seconds.set(nan)
            return
        status = sampler.latest.status
        self._lag_messages.set(status.lag_messages)
        self._lag_seconds.set(status.lag_seconds)
        self._checkpoint.set(status.checkpoint_seq)
        self._shards.set(len(status.shards))
        self._shards_without_leader.set(sum(shard["active"] is None for shard in status.shards))
        self._first.set(status.stream_first_seq)
        self._last.set(status.stream_last_seq)
        for reason in get_args(PoisonReason):
            self._dead_letters.labels(reason).set(status.dead_letters_by_reason.get(reason, 0))
        rebuild = status.rebuild or {"position": 0, "target": 0}
        self._rebuild_position.set(rebuild["position"])
        self._rebuild_target.set(rebuild["target"])
        publish = status.publish or {"lag_commits": None, "lag_seconds": None, "error": None}
        for known, lag in (
            (publish["lag_commits"], self._publish_lag_commits),
            (publish["lag_seconds"], self._publish_lag_seconds),
        ):
            lag.set(nan if known is None else known)
        self._publish_failing.set(publish["error"] is not None)

    def counted(self, counts: Counts) -> None:
        """Set the number of endpoints from a complete count."""
        for name in ("unknown", "connected", "disconnected"):
            self._endpoints.labels(name).set(counts.by_status.get(name, 0))


def snake_case(name: str) -> str:
    """Return the name of a class in snake case."""
    return _WORD.sub("_", name).lower()
