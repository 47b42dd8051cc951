"""What a stream no longer holds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Trimmed:
    """Positions whose messages have left the stream, by retention, a purge or single deletions."""

    first: int
    """Position of the oldest message in the stream; everything before it is gone."""
    deleted: frozenset[int] = frozenset()
    """Later positions whose messages were deleted."""

    def __contains__(self, position: int) -> bool:
        """Return whether the message at a position is gone."""
        return position < self.first or position in self.deleted
