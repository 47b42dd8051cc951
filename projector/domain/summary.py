"""What the tables say about the projection as a whole."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple


class Summary(NamedTuple):
    """The progress of the projection, and its content."""

    position: int
    """Last position folded; 0 if there is no checkpoint."""
    rules_version: int | None
    """Version of the rules that built the rows; None if there is no checkpoint."""
    skipped: Mapping[str, int]
    """Messages of unknown types, by type."""
    dead_letters: Mapping[str, int]
    """Dead letters neither resolved nor discarded, by reason."""
    last_event_stored_at: datetime | None
    """When the broker stored the last message folded."""
    last_commit_at: datetime | None
    """When the position last moved."""
    changes_since: datetime | None
    """Since when `endpoint_change` has every change; None: changes are not recorded."""
    active: Mapping[str, Any] | None
    """The leader as Postgres sees it: application, backend process, address and since when; None: no leader."""
    rebuild: Mapping[str, Any] | None
    """The rebuild or verification in progress: its position, its target and since when."""
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
