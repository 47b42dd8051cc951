"""Dead letters as users see them."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple


class ListedDeadLetter(NamedTuple):
    """A dead letter without its content."""

    position: int
    reason: str
    detail: str
    subject: str
    payload_bytes: int
    stored_at: datetime
    parked_at: datetime
    attempts: int
    state: str


class StoredDeadLetter(NamedTuple):
    """A dead letter with its content."""

    position: int
    state: str
    reason: str
    detail: str
    subject: str
    headers: Mapping[str, str] | None
    stored_at: datetime
    parked_at: datetime
    attempts: int
    closed_at: datetime | None
    note: str | None
    payload: bytes
