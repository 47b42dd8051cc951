"""The daemon's log: one line per change of state, none per event."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import inf
from time import monotonic

import structlog
from structlog.typing import EventDict

from projector.app.notifications import (
    Active,
    CaughtUp,
    ChangesLost,
    Committed,
    Listening,
    Notification,
    NotListening,
    PublishingFailed,
    PublishingResumed,
    Released,
    Retrying,
    StandingBy,
    StreamRecognized,
    TooManyWorkers,
    WorkerDied,
)
from projector.app.observers import Observer
from projector.app.projection import Outcome
from projector.domain.revision_hint import hinted_revision
from projector.domain.rules import Rules
from projector.domain.shards import Shard
from projector.errors import FatalError, TransientError, one_line
from projector.settings import Settings
from projector.settings.urls import masked
from projector.terminal import visible_lines
from projector.version import __version__

_PARKED_NAMED = 10
"""Dead letters of one batch that are logged one by one; the others are counted."""
_BRIEFLY_S = 10.0
_REPEAT_AFTER_S = 60.0
_ENOUGH_OF_ANOTHER_REVISION = 3
"""Malformed messages, without a valid event between them, after which the log names their revision."""

log = structlog.stdlib.get_logger("projector")


def _make_visible(_: object, __: str, said: EventDict) -> EventDict:
    return {name: visible_lines(value) if isinstance(value, str) else value for name, value in said.items()}


_FOR_TERMINALS = (
    _make_visible,
    structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
)


def configure(*, verbose: bool) -> None:
    """Log to standard error: readable on a terminal, JSON elsewhere."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *(_FOR_TERMINALS if terminal else (structlog.processors.JSONRenderer(),)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


class DaemonLog(Observer):
    """Logs the daemon's notifications."""

    def __init__(self, **fields: object) -> None:
        """Log nothing yet; the fields are part of every line."""
        self._log = structlog.stdlib.get_logger("projector").bind(**fields) if fields else log
        self._behind_since: dict[Shard, float] = {}
        self._failures: dict[str, float] = {}
        """When each failure may be logged again."""
        self._other_revisions = _OtherRevisions()

    def starting(self, settings: Settings, rules: Rules) -> None:
        """Log the settings, without secrets."""
        self._log.info(
            "starting",
            version=__version__,
            stream=settings.stream,
            consumer=settings.consumer,
            originators=", ".join(settings.originators) or "all",
            nats=masked(settings.nats_url),
            database=masked(settings.database_url),
            revision=settings.revision,
            rules=rules.version,
            batch_size=settings.batch_size,
            publish=settings.publish or "off",
            http=settings.http,
        )

    def notify(self, notification: Notification) -> None:
        """Log a notification if it reports something new."""
        match notification:
            case StandingBy():
                self._log.info("standing by", reason="another projector is active on this database")
            case Active(checkpoint=checkpoint):
                self._behind_since[checkpoint.shard] = -inf
                self._failures.clear()
                place = {"stream": checkpoint.stream, "checkpoint": checkpoint.position}
                self._log.info("active", **place, **_of(checkpoint.shard))
            case Committed():
                self._committed(notification)
            case CaughtUp(checkpoint=checkpoint):
                behind_since = self._behind_since.pop(checkpoint.shard, inf)
                if monotonic() - behind_since > _BRIEFLY_S:
                    self._log.info("caught up", checkpoint=checkpoint.position, **_of(checkpoint.shard))
            case StreamRecognized(checkpoint=checkpoint, created_before=before):
                self._log.warning(
                    "stream recognized",
                    stream=checkpoint.stream,
                    created=_iso(checkpoint.stream_created_at),
                    created_before=_iso(before),
                    reason="NATS has changed its creation time; the message at the checkpoint is the one folded there",
                )
            case Retrying(error=error, shard=shard):
                self._retrying(error, shard)
            case _:
                self._workers(notification)
                self._serving(notification)
                self._publishing(notification)

    def _workers(self, notification: Notification) -> None:
        match notification:
            case Released(shard=shard):
                self._log.info("released", **_of(shard))
            case WorkerDied(worker=worker, reason=reason):
                self._log.error("worker died", worker=worker, reason=reason, then="another one is started")
            case TooManyWorkers(workers=workers, shards=shards):
                self._log.warning(
                    "too many workers",
                    reason=f"{workers} workers for {shards} shard{'' if shards == 1 else 's'}: some only stand by",
                    then=f"stop every daemon, and run `projector init --shards {workers}`; or start fewer workers",
                )

    def _serving(self, notification: Notification) -> None:
        match notification:
            case Listening(url=url):
                self._log.info("listening", http=url)
            case NotListening(reason=reason):
                self._log.warning("not listening", reason=reason, then="the daemon keeps folding and retries")

    def _publishing(self, notification: Notification) -> None:
        match notification:
            case PublishingFailed(error=error):
                then = "the daemon keeps folding, and publishes later what it could not"
                self._log.warning("not publishing", error=type(error).__name__, reason=one_line(error), then=then)
            case PublishingResumed():
                self._log.info("publishing")
            case ChangesLost(commits=commits):
                self._log.error(
                    "changes lost",
                    commits=commits,
                    reason="they left the log before they were published; keep it for longer (PROJECTOR_CHANGES)",
                )

    def _committed(self, batch: Committed) -> None:
        self._log.debug("committed", checkpoint=batch.checkpoint.position, pending=batch.pending)
        if batch.pending:
            self._behind_since.setdefault(batch.checkpoint.shard, monotonic())
        parked = batch.outcome.dead_letters
        for message, reason, detail in parked[:_PARKED_NAMED]:
            self._log.warning("parked", position=message.position, reason=reason, detail=detail)
        if more := len(parked[_PARKED_NAMED:]):
            self._log.warning("parked", more=more, see="projector dead-letters list")
        if revision := self._other_revisions.recognized(batch.outcome):
            self._log.warning(
                "other revision",
                reason=f"the messages are malformed, but decode as events of revision {revision}",
                revision=batch.checkpoint.rules.revision,
                then=f"run `projector doctor`; if it agrees, set PROJECTOR_REVISION={revision}, "
                "and run `projector rebuild`",
            )

    def _retrying(self, error: TransientError, shard: Shard) -> None:
        """Log the failure; repeat the same one, of any shard, at most once a minute."""
        reason, now = str(error), monotonic()
        self._failures = {known: due for known, due in self._failures.items() if due > now}
        if reason not in self._failures:
            self._failures[reason] = now + _REPEAT_AFTER_S
            self._log.warning("retrying", error=type(error).__name__, reason=reason, **_of(shard))

    @contextmanager
    def errors_logged(self) -> Iterator[None]:
        """Log an error raised in the block; an unexpected one with its traceback, even without `--verbose`."""
        try:
            yield
        except FatalError as error:
            self.stopped(str(error))
            raise
        except Exception as error:
            self._log.error("broken", error=type(error).__name__, reason=one_line(error), exc_info=error)
            raise

    def stopping(self, reason: str) -> None:
        """Log why the daemon is about to end, once the current batch is finished."""
        self._log.info("stopping", reason=reason)

    def stopped(self, reason: str) -> None:
        """Log why the daemon ended."""
        self._log.info("stopped", reason=reason)


class _OtherRevisions:
    """Detects, once, that all messages are malformed but decode as events of another revision."""

    def __init__(self) -> None:
        self._hints: Counter[str] = Counter()
        self._said = False

    def recognized(self, outcome: Outcome) -> str | None:
        """Return that revision once enough messages, without a valid event between them, decode in it."""
        if self._said:
            return None
        if outcome.events:
            self._hints.clear()
            return None
        self._hints.update(filter(None, (hinted_revision(detail) for *_, detail in outcome.dead_letters)))
        revision = next((name for name, count in self._hints.items() if count >= _ENOUGH_OF_ANOTHER_REVISION), None)
        self._said = revision is not None
        return revision


def _of(shard: Shard) -> dict[str, int]:
    """Return the field that names a shard, if there are several."""
    return {} if shard.of == 1 else {"shard": shard.number}


def _iso(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
