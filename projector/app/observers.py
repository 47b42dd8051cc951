"""Receivers of the daemon's notifications: logs, metrics, views."""

from collections.abc import Sequence
from typing import Protocol

from projector.app.notifications import Notification


class Observer(Protocol):
    """Receives notifications; subclass it, or provide the method."""

    def notify(self, notification: Notification) -> None:
        """Handle a notification.

        Called on the daemon's event loop, a few times per batch: return quickly, and raise nothing.
        What it raises is not caught: as a rule it ends the daemon, and later observers miss the notification.
        """
        del notification


class Observers(Observer):
    """Passes each notification on to several observers, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        """Take the observers."""
        self._observers = tuple(observers)

    def notify(self, notification: Notification) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.notify(notification)
