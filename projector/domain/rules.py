"""The rules that decide which rows a stream implies, and their version."""

from dataclasses import dataclass

from projector.errors import RulesChangedError

RULES_VERSION = 2
"""Increment this when the same messages lead to other rows, parked messages or skipped types.

`tests/unit/test_rules_golden.py` fails if this is forgotten.
"""

BEFORE_NUMBERS = 0
"""The version of rows from before versions were numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the rows depend on besides the stream; rows of different rules must not be mixed."""

    version: int
    revision: str
    """Revision of the protocol."""
    originators: tuple[str, ...]
    """Originators whose events are folded, sorted; empty: all."""

    def check(self, now: "Rules") -> None:
        """Check that the rules `now` may continue the rows that these rules built.

        Raises:
            RulesChangedError: the rules differ.
        """
        if self.revision != now.revision:
            raise RulesChangedError(
                what="protocol revision",
                built_with=self.revision,
                now=now.revision,
                undo="set PROJECTOR_REVISION to that of the rows",
            )
        if self.originators != now.originators:
            raise RulesChangedError(
                what="the events of originators",
                built_with=", ".join(self.originators) or "(all)",
                now=", ".join(now.originators) or "(all)",
                undo="set PROJECTOR_ORIGINATORS to those of the rows",
            )
        if self.version != now.version:
            note = " (from before versions were numbers)" if self.version == BEFORE_NUMBERS else ""
            raise RulesChangedError(
                what="rules version",
                built_with=self.version,
                now=now.version,
                undo="return to the version that built them",
                note=note,
            )
