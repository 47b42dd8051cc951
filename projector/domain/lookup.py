"""What the tables say about one endpoint, as JSON that Postgres has written."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

Json: TypeAlias = str
"""The text of a JSON value."""

C = TypeVar("C")


class Found(NamedTuple, Generic[C]):
    """One page of rows."""

    rows: Sequence[Json]
    next: C | None
    """Where the next page begins; None: this is the last one."""


class LogState(NamedTuple):
    """What the log of changes can tell."""

    since: Json
    """Since when it has every change; null: changes are not recorded."""
    is_permitted: bool
    """Whether the role may read it."""


class SessionCursor(NamedTuple):
    """Where a page of sessions, latest first, ends."""

    connected_at: int
    """Unix ms."""
    number: int
    """How many sessions that began at that time have been returned."""


class ChangeCursor(NamedTuple):
    """Where a page of changes, latest first, ends: the key of the last one."""

    committed_at: int
    """Unix ms."""
    commit_no: int
    position: int
    """0 for a correction."""
    facet: str


class SearchedLetters(NamedTuple):
    """The dead letters found on one page of the search for them, newest first."""

    found: Found[int]
    searched: int
    """How many dead letters were looked at."""
