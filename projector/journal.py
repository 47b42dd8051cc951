"""The daemon's log: one line for each thing that changed, nothing per event."""

import logging
import sys

import stamina
import structlog

from projector.app.projection import Outcome
from projector.domain.checkpoint import Checkpoint
from projector.errors import TransientError

log = structlog.stdlib.get_logger("projector")


def configure(*, verbose: bool) -> None:
    """Log to standard error: readable on a terminal, JSON elsewhere."""
    stamina.instrumentation.set_on_retry_hooks(())  # what is retried is said here, in our words
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


class Journal:
    """Writes what `app.observers.Observer` hears into the log."""

    def beat(self) -> None:
        """Say nothing."""

    def standing_by(self) -> None:
        """Say that another projector works."""
        log.info("standing by", reason="another projector is active on this database")

    def active(self, checkpoint: Checkpoint) -> None:
        """Say where folding begins."""
        log.info("active", stream=checkpoint.stream, checkpoint=checkpoint.position)

    def committed(self, checkpoint: Checkpoint, outcome: Outcome, *, pending: int) -> None:
        """Say what was parked."""
        log.debug("committed", checkpoint=checkpoint.position, pending=pending)
        for message, reason, detail in outcome.dead_letters:
            log.warning("parked", position=message.position, reason=reason, detail=detail)

    def caught_up(self, checkpoint: Checkpoint) -> None:
        """Say that the end of the stream is reached."""
        log.info("caught up", checkpoint=checkpoint.position)

    def retrying(self, error: TransientError) -> None:
        """Say what went wrong for now."""
        log.warning("retrying", error=type(error).__name__, reason=str(error))
