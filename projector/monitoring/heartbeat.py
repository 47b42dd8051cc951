"""The heartbeat of the loop that folds, and what the daemon is doing.

It is written on that loop and read from the thread that answers: each value is replaced whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Literal, TypeAlias

from projector.app.observers import Deaf
from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import Message
from projector.errors import TransientError

HEARTBEAT_PERIOD_S = 10.0
_PERIODS_MISSED = 2

State: TypeAlias = Literal["starting", "standby", "active", "retrying", "stopped"]


@dataclass(frozen=True, slots=True)
class Doing:
    """What the daemon is doing."""

    state: State
    reason: str | None = None
    """What failed, while it is retrying."""
    active_since: datetime | None = None
    caught_up_at: datetime | None = None


class Heartbeat(Deaf):
    """Listens to the daemon (`app.observers.Observer`): whatever is heard of it shows that its loop goes round."""

    def __init__(self, period_s: float = HEARTBEAT_PERIOD_S) -> None:
        """Begin with a beat."""
        self.started_at = datetime.now(UTC)
        self.doing = Doing("starting")
        self._limit_s = _PERIODS_MISSED * period_s
        self._beat_at = monotonic()

    @property
    def age_s(self) -> float:
        """How long ago the loop was last heard of."""
        return monotonic() - self._beat_at

    @property
    def missed(self) -> bool:
        """Whether it was not heard of for two periods."""
        return self.doing.state != "stopped" and self.age_s > self._limit_s

    def beat(self) -> None:
        """Note the time."""
        self._beat_at = monotonic()

    def standing_by(self) -> None:
        """Remember that another projector works."""
        self._do(Doing("standby"))

    def active(self, checkpoint: Checkpoint) -> None:
        """Remember since when this one works."""
        del checkpoint
        self._do(Doing("active", active_since=datetime.now(UTC)))

    def received(self, messages: Sequence[Message]) -> None:
        """Note the time."""
        del messages
        self.beat()

    def caught_up(self, checkpoint: Checkpoint) -> None:
        """Remember when that was."""
        del checkpoint
        self._do(Doing("active", active_since=self.doing.active_since, caught_up_at=datetime.now(UTC)))

    def retrying(self, error: TransientError) -> None:
        """Remember what failed."""
        self._do(Doing("retrying", reason=str(error)))

    def stopped(self) -> None:
        """Remember that nothing more is to be heard."""
        self._do(Doing("stopped"))

    def _do(self, doing: Doing) -> None:
        self.doing = doing
        self.beat()
