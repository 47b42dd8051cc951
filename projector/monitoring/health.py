"""Judges whether the daemon is healthy and ready, and lists its problems."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from projector.monitoring.history import History
from projector.monitoring.liveness import Liveness
from projector.monitoring.sampler import Sampler

_GROWING_POINTS = 6
"""Number of points of the history that decide whether the lag grows: half a minute."""


class Condition(NamedTuple):
    """Whether a condition is met, and if not, the reason."""

    met: bool
    reason: str | None = None


class Health:
    """Judges by the heartbeats and the latest sample."""

    def __init__(self, liveness: Liveness, sampler: Sampler, history: History, *, ready_lag_s: float) -> None:
        """Take the parts to judge by; the daemon is not ready if the lag exceeds `ready_lag_s`."""
        self._liveness = liveness
        self._sampler = sampler
        self._history = history
        self._ready_lag_s = ready_lag_s

    def healthy(self) -> Condition:
        """Return whether the event loop is alive; the state of the servers does not matter."""
        if self._liveness.missed:
            return Condition(met=False, reason=f"The event loop has been blocked for {self._liveness.age_s:.0f} s")
        return Condition(met=True)

    def ready(self) -> Condition:
        """Return whether the table is fresh, or this daemon stands by."""
        healthy = self.healthy()
        if not healthy.met:
            return healthy
        doing = self._liveness.doing
        if doing.state == "standby":
            return Condition(met=True)
        if doing.state != "active":
            return Condition(met=False, reason=": ".join(filter(None, (f"The daemon is {doing.state}", doing.reason))))
        if not self._sampler.fresh:
            return Condition(met=False, reason=f"The lag is unknown: {self._sampler.error or 'there is no sample yet'}")
        return self._fresh()

    def _fresh(self) -> Condition:
        """Return whether every shard is led, and follows the stream closely."""
        if self._leaderless is not None:
            return Condition(met=False, reason=self._leaderless)
        lag_s = self._lag_s
        if lag_s > self._ready_lag_s:
            return Condition(met=False, reason=f"Lag is {lag_s:.0f} s, more than {self._ready_lag_s:g} s")
        return Condition(met=True)

    def problems(self) -> list[str]:
        """Return the problems that need attention, worst first."""
        # The daemon and the sampler fail for the same reason; it is listed once.
        found = [self.healthy().reason, self._liveness.doing.reason or self._sampler.error]
        if self._sampler.fresh and self._lag_s > self._ready_lag_s:
            found.append(f"Lag is {self._lag_s:.0f} s and {self._trend()}")
        if self._sampler.latest is not None:
            status = self._sampler.latest.status
            if status.active is None:
                found.append(self._leaderless or "No projector is active")
            if status.dead_letters:
                found.append(_count(status.dead_letters))
            if self.publish_error is not None:
                found.append(f"Changes are not published: {self.publish_error}")
        return [problem for problem in found if problem is not None]

    @property
    def publish_error(self) -> str | None:
        """Why changes are not published; None if they are, or if publishing is off."""
        latest = self._sampler.latest
        publish = None if latest is None else latest.status.publish
        return None if publish is None else publish["error"]

    @property
    def _leaderless(self) -> str | None:
        """Which of several shards have no leader; None: each has one."""
        shards = self._shards
        free = [str(shard["shard"]) for shard in shards if shard["active"] is None]
        if len(shards) < 2 or not free:  # noqa: PLR2004 - several
            return None
        which = f"Shard {free[0]} has" if len(free) == 1 else f"Shards {', '.join(free)} have"
        return f"{which} no leader"

    @property
    def _shards(self) -> Sequence[Mapping[str, Any]]:
        """The shards, as in the latest sample."""
        latest = self._sampler.latest
        return () if latest is None else latest.status.shards

    @property
    def _lag_s(self) -> float:
        latest = self._sampler.latest
        return 0.0 if latest is None else latest.status.lag_seconds

    def _trend(self) -> str:
        known = [point.lag_messages for point in self._history.points[-_GROWING_POINTS:] if point.lag_messages]
        return "growing" if len(known) > 1 and known[-1] > known[0] else "not growing"


def _count(dead_letters: int) -> str:
    return "1 dead letter needs attention" if dead_letters == 1 else f"{dead_letters} dead letters need attention"
