"""What the tables say about the projection as a whole."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple


class FeedState(NamedTuple):
    """How far the changes are published; its fields are the keys of `publish` in `projector status --json`.

    With several shards, the lag and what was lost are summed.
    """

    prefix: str
    """Subject prefix of the settings."""
    stream: str | None = None
    """The stream that holds the latest published change; None: nothing was published yet."""
    cursor: int | None = None
    """Number of the commit up to which every change is published; None: no daemon has begun to publish.

    With several shards, the lowest: each numbers its own commits.
    """
    lag_commits: int | None = None
    """Commits after it, some of which may have nothing to publish."""
    lag_seconds: float | None = None
    """Age of the oldest of them; 0 if there is none."""
    advanced_at: datetime | None = None
    """When the cursor last moved."""
    error: str | None = None
    """Why nothing is published; None: publishing works."""
    error_since: datetime | None = None
    lost_commits: int = 0
    """Commits whose changes left the log before they were published, at most."""


class ShardProgress(NamedTuple):
    """The progress of one shard; its fields are the keys of each item of `shards` in `projector status --json`."""

    shard: int
    checkpoint_seq: int
    """Last position folded."""
    lag_messages: int | None
    """Messages not folded, as the leader last saw; None: there was no leader yet."""
    last_commit_at: datetime
    active: Mapping[str, Any] | None
    """The leader, as in `Summary`."""


class Summary(NamedTuple):
    """The progress of the projection, and its content."""

    position: int
    """Position through which every shard has folded; 0 if there is no checkpoint."""
    shards: Sequence[ShardProgress]
    """Every shard; none if there is no checkpoint."""
    rules_version: int | None
    """Version of the rules that built the rows; None if there is no checkpoint."""
    skipped: Mapping[str, int]
    """Messages of unknown types, by type."""
    dead_letters: Mapping[str, int]
    """Dead letters neither resolved nor discarded, by reason."""
    last_event_stored_at: datetime | None
    """When the broker stored the message at the position."""
    last_commit_at: datetime | None
    """When a checkpoint last moved."""
    changes_since: datetime | None
    """Since when `endpoint_change` has every change; None: changes are not recorded."""
    active: Mapping[str, Any] | None
    """The leader as Postgres sees it: application, backend process, address and since when; None: no leader.

    With several shards, the leader of the one furthest behind; None: one of them has no leader.
    """
    rebuild: Mapping[str, Any] | None
    """The rebuild or verification in progress: its position, its target and since when."""
    publish: FeedState | None = None
    """How far the changes are published; None: they are not."""
    endpoints: int | None = None
    """Rows of `endpoint_state`; None: not counted."""


class Census(NamedTuple):
    """Number of endpoints of each kind, the most frequent first."""

    by_status: Mapping[str, int]
    by_version: Mapping[str, int]


class Slice(NamedTuple):
    """The endpoints on some pages of the table."""

    counts: Sequence[tuple[str, str, str, int]]
    """Connectivity status, version, configuration status, and number of endpoints."""
    seconds: float
    """How long the database took to count the endpoints."""
