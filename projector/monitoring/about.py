"""Identifies the monitored daemon."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Facts that do not change while the daemon runs."""

    version: str
    revision: str
    """Protocol revision."""
    rules: int
    """Rules version."""
    stream: str
