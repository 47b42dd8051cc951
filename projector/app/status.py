"""The status of the projection, combined from the database and the stream."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import time
from typing import Any, Protocol

from projector.domain.messages import Message, StreamState
from projector.domain.summary import Summary


class StreamStats(Protocol):
    """Figures of a stream; see `stream.view.StreamView`."""

    async def state(self) -> StreamState:
        """Return what the stream holds now."""
        ...

    async def count_after(self, position: int) -> int:
        """Return how many matching messages follow a position."""
        ...

    async def first_after(self, position: int) -> Message | None:
        """Return the first matching message after a position; None if there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status; its fields are the keys of `projector status --json`."""

    stream: str
    stream_first_seq: int
    stream_last_seq: int
    checkpoint_seq: int
    """Position through which every shard has folded."""
    lag_messages: int
    lag_seconds: float
    """Age of the oldest message that is not folded; 0 if there is none."""
    last_event_stored_at: datetime | None
    last_commit_at: datetime | None
    endpoints: int | None
    dead_letters: int
    dead_letters_by_reason: Mapping[str, int]
    skipped: Mapping[str, int]
    changes_since: datetime | None
    """Since when every change is in the log; None: changes are not recorded."""
    shards: Sequence[Mapping[str, Any]]
    """The progress of each shard; none if nothing was ever folded."""
    publish: Mapping[str, Any] | None
    """How far the changes are published; None: PROJECTOR_PUBLISH is off."""
    projection_version: int
    active: Mapping[str, Any] | None
    rebuild: Mapping[str, Any] | None


async def status(
    stream: str, stats: StreamStats, summarise: Callable[[], Awaitable[Summary]], *, rules_version: int
) -> Status:
    """Query the database and the stream; raises StreamMissingError, NotMigratedError, TransientError."""
    summary = await summarise()
    state = await stats.state()
    oldest = await stats.first_after(summary.position) if state.last > summary.position else None
    return Status(
        stream=stream,
        stream_first_seq=state.first,
        stream_last_seq=state.last,
        checkpoint_seq=summary.position,
        lag_messages=0 if oldest is None else await stats.count_after(summary.position),
        lag_seconds=0.0 if oldest is None else max(0.0, round(time() - oldest.stored_at / 1000, 3)),
        last_event_stored_at=summary.last_event_stored_at,
        last_commit_at=summary.last_commit_at,
        endpoints=summary.endpoints,
        dead_letters=sum(summary.dead_letters.values()),
        dead_letters_by_reason=summary.dead_letters,
        skipped=summary.skipped,
        changes_since=summary.changes_since,
        shards=[shard._asdict() for shard in summary.shards],
        publish=summary.publish and summary.publish._asdict(),
        projection_version=rules_version if summary.rules_version is None else summary.rules_version,
        active=summary.active,
        rebuild=summary.rebuild,
    )
