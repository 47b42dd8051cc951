"""What is right and what is wrong with a daemon, in words."""

from typing import NamedTuple

from projector.monitoring.history import History
from projector.monitoring.liveness import Liveness
from projector.monitoring.sampler import Sampler

_GROWING_POINTS = 6
"""Of the history, over which the lag is looked at: half a minute."""


class Answer(NamedTuple):
    """Yes, or no and why."""

    yes: bool
    why_not: str | None = None


class Health:
    """Judges by the heartbeat and the latest sample."""

    def __init__(self, liveness: Liveness, sampler: Sampler, history: History, *, ready_lag_s: float) -> None:
        """Judge by these; a lag above `ready_lag_s` is too much."""
        self._liveness = liveness
        self._sampler = sampler
        self._history = history
        self._ready_lag_s = ready_lag_s

    def healthy(self) -> Answer:
        """Tell whether the loop goes round, whatever the servers do."""
        if self._liveness.missed:
            return Answer(yes=False, why_not=f"The loop has not gone round for {self._liveness.age_s:.0f} s")
        return Answer(yes=True)

    def ready(self) -> Answer:
        """Tell whether the table is fresh, or this daemon stands by."""
        healthy = self.healthy()
        if not healthy.yes:
            return healthy
        doing = self._liveness.doing
        if doing.state == "standby":
            return Answer(yes=True)
        if doing.state != "active":
            return Answer(yes=False, why_not=": ".join(filter(None, (f"The daemon is {doing.state}", doing.reason))))
        if not self._sampler.fresh:
            return Answer(yes=False, why_not=f"The lag is not known: {self._sampler.error or 'not asked for yet'}")
        lag_s = self._lag_s
        if lag_s > self._ready_lag_s:
            return Answer(yes=False, why_not=f"Lag is {lag_s:.0f} s, more than {self._ready_lag_s:g} s")
        return Answer(yes=True)

    def problems(self) -> list[str]:
        """Return what somebody should look at, the worst first."""
        # What the daemon waits for, the sampler stumbles over as well.
        found = [self.healthy().why_not, self._liveness.doing.reason or self._sampler.error]
        if self._sampler.fresh and self._lag_s > self._ready_lag_s:
            found.append(f"Lag is {self._lag_s:.0f} s and {self._trend()}")
        if self._sampler.latest is not None:
            status = self._sampler.latest.status
            if status.active is None:
                found.append("No projector is active")
            if status.dead_letters:
                found.append(_waiting(status.dead_letters))
        return [problem for problem in found if problem is not None]

    @property
    def _lag_s(self) -> float:
        latest = self._sampler.latest
        return 0.0 if latest is None else latest.status.lag_seconds

    def _trend(self) -> str:
        known = [point.lag_messages for point in self._history.points[-_GROWING_POINTS:] if point.lag_messages]
        return "growing" if len(known) > 1 and known[-1] > known[0] else "not growing"


def _waiting(dead_letters: int) -> str:
    return "1 dead letter waits for somebody" if dead_letters == 1 else f"{dead_letters} dead letters wait for somebody"
