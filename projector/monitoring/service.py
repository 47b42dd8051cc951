"""Reports readiness, status and heartbeats to the service manager (sd_notify)."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Self

from projector.app.notifications import Active, Notification, Retrying, StandingBy
from projector.app.observers import Observer

_BEATS_PER_TIMEOUT = 4
_LONGEST_STATUS = 300


class ServiceManager(Observer):
    """Notifies the service manager; does nothing if there is none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read the socket and the watchdog timeout from the environment."""
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if path else None
        self._pause_s = int(environment.get("WATCHDOG_USEC") or 0) / 1_000_000 / _BEATS_PER_TIMEOUT
        self._beat_due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Report that the daemon stops."""
        self._send("STOPPING=1")
        if self._socket is not None:
            self._socket.close()

    def notify(self, notification: Notification) -> None:
        """Feed the watchdog, and report a change of state."""
        self._feed_watchdog()
        match notification:
            case StandingBy():
                self._report("standing by: another projector is active")
            case Active(checkpoint=checkpoint):
                self._report(f"active from position {checkpoint.position}")
            case Retrying(error=error):
                self._report(f"retrying: {error}")

    def _feed_watchdog(self) -> None:
        now = monotonic()
        if self._pause_s and now >= self._beat_due:
            self._beat_due = now + self._pause_s
            self._send("WATCHDOG=1")

    def _report(self, status: str) -> None:
        """Report readiness in every state: a daemon that waits for a server has started."""
        self._send("READY=1", f"STATUS={' '.join(status.split())[:_LONGEST_STATUS]}")

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # the service manager is gone; the daemon goes on
                self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
