"""Whether the daemon's event loop is alive, and what the daemon is doing.

Written on the daemon's event loop and read from the monitoring thread, so each value is replaced as a whole.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Literal, TypeAlias

from projector.app.notifications import Active, CaughtUp, Notification, Released, Retrying, StandingBy
from projector.app.observers import Observer
from projector.domain.shards import Shard

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
        self._by_shard: dict[Shard, Doing] = {}
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
                self._by_shard.clear()
                self.doing = Doing("standby")
            case Active(checkpoint=checkpoint):
                self._note(checkpoint.shard, Doing("active", active_since=datetime.now(UTC)))
            case CaughtUp(checkpoint=checkpoint):
                since = self._by_shard.get(checkpoint.shard, self.doing).active_since
                self._note(checkpoint.shard, Doing("active", active_since=since, caught_up_at=datetime.now(UTC)))
            case Retrying(error=error, shard=shard):
                self._note(shard, Doing("retrying", reason=str(error)))
            case Released(shard=shard):
                self._by_shard.pop(shard, None)
                self._summarise()
        self._beat_at = monotonic()

    def _note(self, shard: Shard, doing: Doing) -> None:
        # A daemon that cannot connect at its start does not know how many shards there are, and retries as if with one.
        self._by_shard = {other: known for other, known in self._by_shard.items() if other.of == shard.of}
        self._by_shard[shard] = doing
        self._summarise()

    def _summarise(self) -> None:
        """Take the worst state among the shards that this daemon leads."""
        if self._by_shard:
            self.doing = max(self._by_shard.values(), key=lambda doing: doing.state == "retrying")

    def stop(self) -> None:
        """Expect no more heartbeats."""
        self.doing = Doing("stopped")
