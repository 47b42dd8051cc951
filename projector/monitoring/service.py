"""What a daemon tells the service manager that started it (sd_notify): ready, what it does, that it goes round."""

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Self

from projector.app.observers import Deaf
from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import Message
from projector.errors import TransientError

_BEATS_PER_TIMEOUT = 4
_LONGEST_STATUS = 300


class ServiceManager(Deaf):
    """Listens to the daemon (`app.observers.Observer`); where there is no service manager it says nothing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take from the environment where to say it, and how often a watchdog wants to hear of the loop."""
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if path else None
        self._pause_s = int(environment.get("WATCHDOG_USEC") or 0) / 1_000_000 / _BEATS_PER_TIMEOUT
        self._beat_due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Say that it ends."""
        self._say("STOPPING=1")
        if self._socket is not None:
            self._socket.close()

    def beat(self) -> None:
        """Feed the watchdog, as often as it has to be."""
        now = monotonic()
        if self._pause_s and now >= self._beat_due:
            self._beat_due = now + self._pause_s
            self._say("WATCHDOG=1")

    def standing_by(self) -> None:
        """Say that it is ready to take over."""
        self._change("standing by: another projector is active", "READY=1")

    def active(self, checkpoint: Checkpoint) -> None:
        """Say that it works."""
        self._change(f"active from position {checkpoint.position}", "READY=1")

    def received(self, messages: Sequence[Message]) -> None:
        """Feed the watchdog."""
        del messages
        self.beat()

    def retrying(self, error: TransientError) -> None:
        """Say what it waits for: a daemon that waits for a server is up, and no start that failed."""
        self._change(f"retrying: {error}", "READY=1")

    def _change(self, status: str, *states: str) -> None:
        self.beat()
        self._say(*states, f"STATUS={' '.join(status.split())[:_LONGEST_STATUS]}")

    def _say(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # nobody listens any more, which is no reason to stop folding
                self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
