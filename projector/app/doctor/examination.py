"""Looks at one's own NATS and Postgres, and says what will hurt."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from projector.app.doctor.broker import BROKER_CHECKS, CONSUMER_CHECKS, STREAM_CHECKS
from projector.app.doctor.database import DATABASE_CHECKS
from projector.app.doctor.findings import Check, Finding, Inspection, found
from projector.app.doctor.setup import SETUP_CHECKS
from projector.domain.broker_info import BrokerInfo
from projector.domain.database_info import DatabaseInfo
from projector.domain.rules import Rules
from projector.errors import ProjectorError, SettingError

T = TypeVar("T")

CHECKS: Sequence[Check[Any]] = (*SETUP_CHECKS, *BROKER_CHECKS, *STREAM_CHECKS, *CONSUMER_CHECKS, *DATABASE_CHECKS)
"""Everything that is looked for, in the order in which it is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found; its fields are the keys of `projector doctor --json`."""

    findings: Sequence[Finding]
    unseen: Sequence[str]
    """What could not be looked at, and why: nothing is known to be wrong with it."""

    @property
    def has_error(self) -> bool:
        """Whether anything found is an error."""
        return any(finding.severity == "error" for finding in self.findings)


async def examine(
    look_at_broker: Callable[[int], Awaitable[BrokerInfo]],
    look_at_database: Callable[[], Awaitable[DatabaseInfo]],
    *,
    stream: str,
    rules: Rules,
) -> Examination:
    """Look at both servers; one that cannot be looked at is a finding, and the other one is still examined.

    `look_at_broker` takes the position of the checkpoint, 0 if it is not known.

    Raises:
        SettingError: as its name says.
    """
    # One after the other: beside a working daemon, the stream that is seen is then not older than the checkpoint.
    database = await _attempt(look_at_database)
    checkpoint = database.checkpoint if isinstance(database, DatabaseInfo) else None
    broker = await _attempt(partial(look_at_broker, checkpoint.position if checkpoint else 0))
    inspection = Inspection(stream=stream, rules=rules, broker=broker, database=database)
    return Examination(findings=tuple(_findings(inspection)), unseen=tuple(_unseen(inspection)))


async def _attempt(look: Callable[[], Awaitable[T]]) -> T | ProjectorError:
    try:
        return await look()
    except SettingError:
        raise
    except ProjectorError as error:
        return error


def _findings(inspection: Inspection) -> Iterator[Finding]:
    yield from found(SETUP_CHECKS, inspection)
    yield from found(BROKER_CHECKS, inspection.seen_broker)
    yield from found(STREAM_CHECKS, inspection.seen_stream)
    yield from found(CONSUMER_CHECKS, inspection.seen_consumer)
    yield from found(DATABASE_CHECKS, inspection.seen_database)


def _unseen(inspection: Inspection) -> Iterator[str]:
    broker = inspection.seen_broker
    if broker is None:
        return
    yield from broker.unseen
    if broker.stream is not None and broker.stream.clustered:
        yield "the other servers of the NATS cluster: only the one that was reached tells its version"
    if broker.clock is None:
        yield "the clock of NATS: only a stream tells it, from version 2.10 on"
