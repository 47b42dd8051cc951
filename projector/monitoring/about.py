"""Which projector is watched."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What does not change while it runs."""

    version: str
    revision: str
    """Of the protocol."""
    rules: int
    """Version of the rules."""
    stream: str
