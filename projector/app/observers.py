"""Who hears of what happens on the path: whoever shows, logs or counts it."""

from collections.abc import Sequence
from typing import Protocol

from projector.app.projection import Outcome
from projector.domain.checkpoint import Checkpoint
from projector.domain.messages import Message
from projector.errors import TransientError


class Observer(Protocol):
    """Hears of what happens; called on the loop that folds, so that it has to be quick."""

    def beat(self) -> None:
        """Hear that the loop goes round: at every commit, and about once a second while it waits for anything."""
        ...

    def standing_by(self) -> None:
        """Hear that another projector works and this one waits."""
        ...

    def active(self, checkpoint: Checkpoint) -> None:
        """Hear that this projector works, from the checkpoint on."""
        ...

    def received(self, messages: Sequence[Message]) -> None:
        """Hear that messages came, in stream order; what comes of them is heard when they are committed."""
        ...

    def committed(self, checkpoint: Checkpoint, outcome: Outcome, *, pending: int) -> None:
        """Hear that a batch is in the database; `pending` messages waited behind it when it was sent."""
        ...

    def caught_up(self, checkpoint: Checkpoint) -> None:
        """Hear that everything the stream held is folded."""
        ...

    def retrying(self, error: TransientError) -> None:
        """Hear that something failed that may pass, and that the session begins anew."""
        ...


class Deaf:
    """An observer that ignores everything; those who want to hear of something override that."""

    def beat(self) -> None:
        """Ignore it."""

    def standing_by(self) -> None:
        """Ignore it."""

    def active(self, checkpoint: Checkpoint) -> None:
        """Ignore it."""

    def received(self, messages: Sequence[Message]) -> None:
        """Ignore it."""

    def committed(self, checkpoint: Checkpoint, outcome: Outcome, *, pending: int) -> None:
        """Ignore it."""

    def caught_up(self, checkpoint: Checkpoint) -> None:
        """Ignore it."""

    def retrying(self, error: TransientError) -> None:
        """Ignore it."""


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        """Pass on to each of them, in this order."""
        self._observers = tuple(observers)

    def beat(self) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.beat()

    def standing_by(self) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.standing_by()

    def active(self, checkpoint: Checkpoint) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.active(checkpoint)

    def received(self, messages: Sequence[Message]) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.received(messages)

    def committed(self, checkpoint: Checkpoint, outcome: Outcome, *, pending: int) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.committed(checkpoint, outcome, pending=pending)

    def caught_up(self, checkpoint: Checkpoint) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.caught_up(checkpoint)

    def retrying(self, error: TransientError) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.retrying(error)
