"""Names an event in a sentence: where it came from, and when."""

from typing import Any

from projector.domain.moments import time_text
from projector.domain.stamps import Register, Stamp, supersedes


def sender(stamp: Stamp) -> str:
    """Return the name of the replica that an event came from."""
    return f"{stamp.originator}/{stamp.replica}" if stamp.replica else f"{stamp.originator} (replica unknown)"


def when(stamp: Stamp) -> str:
    """Return when an event happened, and its position, as far as is known."""
    return f"{time_text(stamp.occurred_at)}" + (f" (position {stamp.position})" if stamp.position else "")


def described(stamp: Stamp) -> str:
    """Return where an event came from and when it happened, as far as is known."""
    return f"from {sender(stamp)} at {when(stamp)}" if stamp.originator else f"at {when(stamp)}"


def newer(sentence: str, held: Stamp | Register[Any] | None, stamp: Stamp) -> str | None:
    """Return a sentence with the held event in place of `{}`; None if an event with this stamp supersedes that one."""
    held = held.stamp if isinstance(held, Register) else held
    return None if held is None or supersedes(stamp, held) else sentence.format(described(held))
