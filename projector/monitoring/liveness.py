"""Whether the daemon's event loop is alive, and what the daemon is doing.

Written on the daemon's event loop and read from the monitoring thread, so each value is replaced as a whole.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Literal, TypeAlias

from projector.app.notifications import Active, CaughtUp, Notification, Retrying, StandingBy
from projector.app.observers import Observer

HEARTBEAT_PERIOD_S = 10.0
_PERIODS_MISSED = 2

State: TypeAlias = Literal["starting", "standby", "active", "retrying", "stopped"]


@dataclass(frozen=True, slots=True)
class Doing:
    """What the daemon is doing."""

    state: State
    reason: str | None = None
    """The error, while it is retrying."""
    active_since: datetime | None = None
    caught_up_at: datetime | None = None


class Liveness(Observer):
    """Counts every notification as a heartbeat."""

    def __init__(self, period_s: float) -> None:
        """Count the start as the first heartbeat."""
        self.started_at = datetime.now(UTC)
        self.doing = Doing("starting")
        self._limit_s = _PERIODS_MISSED * period_s
        self._beat_at = monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the last heartbeat."""
        return monotonic() - self._beat_at

    @property
    def missed(self) -> bool:
        """Whether two periods passed without a heartbeat."""
        return self.doing.state != "stopped" and self.age_s > self._limit_s

    def notify(self, notification: Notification) -> None:
        """Note the time, and the daemon's state if it changed."""
        match notification:
            case StandingBy():
                self.doing = Doing("standby")
            case Active():
                self.doing = Doing("active", active_since=datetime.now(UTC))
            case CaughtUp():
                self.doing = Doing("active", active_since=self.doing.active_since, caught_up_at=datetime.now(UTC))
            case Retrying(error=error):
                self.doing = Doing("retrying", reason=str(error))
        self._beat_at = monotonic()

    def stop(self) -> None:
        """Expect no more heartbeats."""
        self.doing = Doing("stopped")
