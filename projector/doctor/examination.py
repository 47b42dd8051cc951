"""Inspects NATS and Postgres, and reports what is wrong."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from projector.doctor.broker import BROKER_CHECKS, CONSUMER_CHECKS, STREAM_CHECKS
from projector.doctor.contents import CONTENT_CHECKS
from projector.doctor.database import DATABASE_CHECKS
from projector.doctor.feed import FEED_CHECKS, PUBLISHING_CHECKS
from projector.doctor.findings import Check, Finding, Inspection, found
from projector.doctor.setup import SETUP_CHECKS
from projector.domain.broker_info import BrokerInfo
from projector.domain.database_info import DatabaseInfo
from projector.domain.rules import Rules
from projector.errors import ProjectorError, SettingError

T = TypeVar("T")

CHECKS: Sequence[Check[Any]] = (
    *SETUP_CHECKS,
    *BROKER_CHECKS,
    *STREAM_CHECKS,
    *CONTENT_CHECKS,
    *CONSUMER_CHECKS,
    *DATABASE_CHECKS,
    *FEED_CHECKS,
    *PUBLISHING_CHECKS,
)
"""Every check, in the order of the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The result; its fields are the keys of `projector doctor --json`."""

    findings: Sequence[Finding]
    unseen: Sequence[str]
    """What could not be inspected, and why."""

    @property
    def has_error(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)


async def examine(
    inspect_broker: Callable[[Sequence[int]], Awaitable[BrokerInfo]],
    inspect_database: Callable[[], Awaitable[DatabaseInfo]],
    *,
    stream: str,
    rules: Rules,
) -> Examination:
    """Inspect both servers; a server that cannot be inspected is a finding.

    `inspect_broker` takes the position of each shard, in order; if they are unknown, a single 0.

    Raises:
        SettingError
    """
    # The database first: while a daemon runs, the state of the stream is then not older than the checkpoints.
    database = await _attempt(inspect_database)
    positions = database.positions if isinstance(database, DatabaseInfo) else (0,)
    broker = await _attempt(partial(inspect_broker, positions))
    inspection = Inspection(stream=stream, rules=rules, broker=broker, database=database)
    return Examination(findings=tuple(_findings(inspection)), unseen=tuple(_unseen(inspection)))


async def _attempt(inspect: Callable[[], Awaitable[T]]) -> T | ProjectorError:
    try:
        return await inspect()
    except SettingError:
        raise
    except ProjectorError as error:
        return error


def _findings(inspection: Inspection) -> Iterator[Finding]:
    yield from found(SETUP_CHECKS, inspection)
    yield from found(BROKER_CHECKS, inspection.seen_broker)
    yield from found(STREAM_CHECKS, inspection.seen_stream)
    yield from found(CONTENT_CHECKS, inspection)
    yield from found(CONSUMER_CHECKS, inspection.seen_broker)
    yield from found(DATABASE_CHECKS, inspection.seen_database)
    yield from found(FEED_CHECKS, inspection.seen_broker.feed if inspection.seen_broker else None)
    yield from found(PUBLISHING_CHECKS, inspection)


def _unseen(inspection: Inspection) -> Iterator[str]:
    broker = inspection.seen_broker
    if broker is None:
        return
    yield from broker.unseen
    if broker.stream is not None and broker.stream.clustered:
        yield "the other servers of the NATS cluster: only the connected server reports its version"
    if broker.clock is None:
        yield "the clock of NATS: only a stream reports it, from version 2.10 on"
