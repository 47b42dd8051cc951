"""A message as the stream holds it, before anybody has looked inside."""

from collections.abc import Mapping
from typing import NamedTuple


class Message(NamedTuple):
    """One stored message."""

    position: int
    """Stream sequence, from 1."""
    stored_at: int
    """Unix ms at which the broker stored it."""
    subject: str
    """May hold surrogate escapes where the subject was not UTF-8."""
    payload: bytes
    headers: Mapping[str, str] | None = None


class Skipped(NamedTuple):
    """A message of a type this version does not know: the protocol may grow."""

    type: str
    """What follows `endpoint.` in the subject."""
