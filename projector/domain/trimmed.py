"""What a stream no longer holds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Trimmed:
    """The positions whose messages have left the stream, by retention, by a purge or one by one."""

    first: int
    """Position of the oldest message that is left; everything before it is gone."""
    deleted: frozenset[int] = frozenset()
    """Positions behind that whose messages were deleted."""

    def __contains__(self, position: int) -> bool:
        """Tell whether the message at a position is gone."""
        return position < self.first or position in self.deleted
