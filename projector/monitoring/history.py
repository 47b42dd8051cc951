"""The last 15 minutes, in memory, for the charts of the page."""

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from projector.app.notifications import Committed, Notification
from projector.app.observers import Observer
from projector.app.status import Status

HISTORY_S = 900


class Point(NamedTuple):
    """One sample; None: unknown."""

    at: float
    """Unix s."""
    events_per_second: float
    lag_messages: int | None
    lag_seconds: float | None


class History(Observer):
    """Counts the events that the daemon folds, and keeps a point for each sample."""

    def __init__(self, every_s: float) -> None:
        """Start without points."""
        self.every_s = every_s
        self._points: deque[Point] = deque(maxlen=round(HISTORY_S / every_s))
        self._folded = 0
        self._counted = (monotonic(), 0)

    @property
    def points(self) -> Sequence[Point]:
        """The points, oldest first."""
        return tuple(self._points)

    @property
    def events_per_second(self) -> float:
        """The rate before the last point."""
        return self._points[-1].events_per_second if self._points else 0.0

    def notify(self, notification: Notification) -> None:
        """Count committed events."""
        if isinstance(notification, Committed):
            self._folded += notification.outcome.events

    def add(self, at: float, status: Status | None) -> None:
        """Add a point; a status of None means that the sample failed."""
        (before, counted), now = self._counted, (monotonic(), self._folded)
        self._counted = now
        rate = (now[1] - counted) / max(now[0] - before, 0.001)
        lag = (None, None) if status is None else (status.lag_messages, status.lag_seconds)
        self._points.append(Point(round(at, 3), round(rate, 1), *lag))
