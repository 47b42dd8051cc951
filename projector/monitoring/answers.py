"""The JSON answers of the HTTP endpoints."""

from dataclasses import asdict
from typing import Any

from projector.app.status import Status
from projector.domain.json_text import write_json
from projector.monitoring.about import About
from projector.monitoring.health import Health
from projector.monitoring.history import History
from projector.monitoring.liveness import Liveness
from projector.monitoring.sampler import Sampler

STATUS_KEYS = tuple(Status.__dataclass_fields__)


class Answers:
    """Answers from the latest samples, without a query."""

    def __init__(self, about: About, liveness: Liveness, sampler: Sampler, history: History, health: Health) -> None:
        """Take the parts to answer from."""
        self._about = about
        self._liveness = liveness
        self._sampler = sampler
        self._history = history
        self._health = health

    def healthy(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the daemon is healthy, and the answer of `/healthz`."""
        healthy, reason = self._health.healthy()
        answer: dict[str, Any] = {"healthy": healthy, "heartbeat_age_s": round(self._liveness.age_s, 3)}
        return healthy, answer if healthy else {**answer, "reason": reason}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the daemon is ready, and the answer of `/readyz`."""
        ready, reason = self._health.ready()
        latest = self._sampler.latest
        answer: dict[str, Any] = {
            "ready": ready,
            "state": self._liveness.doing.state,
            "lag_seconds": None if latest is None or self._sampler.error else latest.status.lag_seconds,
            "publish_error": self._health.publish_error,
        }
        return ready, answer if ready else {**answer, "reason": reason}

    def status(self) -> dict[str, Any]:
        """Return the answer of `/status`."""
        latest, counts = self._sampler.latest, self._sampler.counting.latest
        known = dict.fromkeys(STATUS_KEYS) if latest is None else asdict(latest.status)
        return {
            **known,
            "stream": self._about.stream,
            "endpoints": None if counts is None else counts.endpoints,
            "daemon": self._daemon(),
            "sampled_at": None if latest is None else latest.sampled_at,
            "sample_error": self._sampler.error,
            "by_status": None if counts is None else counts.by_status,
            "by_version": None if counts is None else counts.by_version,
            "by_config_status": None if counts is None else counts.by_config_status,
            "counted_at": None if counts is None else counts.counted_at,
            "latest_dead_letters": [] if latest is None else latest.latest_dead_letters,
            "problems": self._health.problems(),
        }

    def history(self) -> dict[str, Any]:
        """Return the answer of `/history`."""
        return {"every_s": self._history.every_s, "points": self._history.points}

    def _daemon(self) -> dict[str, Any]:
        doing = self._liveness.doing
        ready, ready_reason = self._health.ready()
        return {
            "state": doing.state,
            "reason": doing.reason,
            "version": self._about.version,
            "started_at": self._liveness.started_at,
            "active_since": doing.active_since,
            "heartbeat_age_s": round(self._liveness.age_s, 3),
            "healthy": self._health.healthy().met,
            "ready": ready,
            "ready_reason": ready_reason,
            "events_per_second": self._history.events_per_second,
        }


def to_json(answer: object) -> str:
    """Return an answer as JSON, with times in ISO 8601 with milliseconds."""
    return write_json(answer)
