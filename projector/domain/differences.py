"""How `endpoint_state` differs from what the stream implies."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

DifferenceKind = Literal["missing", "extra", "different"]


class RowDifference(NamedTuple):
    """How one row differs."""

    endpoint_id: str
    kind: DifferenceKind
    columns: Mapping[str, tuple[Any, Any]]
    """By column that differs: the value found and the value implied."""


class Differences(NamedTuple):
    """How the table differs."""

    compared: int
    """Rows on either side."""
    missing: int
    """Rows that the stream implies and the table lacks."""
    extra: int
    """Rows that the stream does not imply."""
    different: int
    """Rows on both sides with at least one wrong value."""
    by_column: Mapping[str, int]
    """Number of `different` rows, by column."""
    shown: Sequence[RowDifference]
    """The rows that the caller asked to see."""

    @property
    def clean(self) -> bool:
        """Whether the table is what the stream implies."""
        return not (self.missing or self.extra or self.different)
