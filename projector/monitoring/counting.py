"""Counts the endpoints of each kind in slices, so that a large table does not load the database.

A round visits all pages of the table, and its counts are published when it is complete.
Rows that move during a round may be counted twice or not at all; the next round corrects that.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from projector.monitoring.ports import Pages

_TARGET_S = 0.03
"""Target duration of the query for one slice."""
_FIRST_PAGES = 200
_MOST_GROWTH = 2.0
_REST_S = 5.0
_VERSIONS_NAMED = 20
_VERSIONS_COUNTED = 10_000
"""Bounds the memory if publishers invent versions."""
OTHER_VERSIONS = "(other)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The counts of a round, largest first."""

    endpoints: int
    by_status: Mapping[str, int]
    by_version: Mapping[str, int]
    """The most frequent versions; the others are counted together."""
    by_config_status: Mapping[str, int]
    counted_at: datetime


class _Round:
    """One pass over the pages of the table."""

    def __init__(self, pages: int) -> None:
        self.began = monotonic()
        self.pages = pages
        self.next_page = 0
        self.by_status: Counter[str] = Counter()
        self.by_version: Counter[str] = Counter()
        self.by_config_status: Counter[str] = Counter()


class Counting:
    """Counts one slice per step, and pauses between rounds for at least the length of a round."""

    def __init__(self, table: Pages) -> None:
        """Count nothing yet."""
        self.latest: Counts | None = None
        self._table = table
        self._slice_pages = _FIRST_PAGES
        self._rest_until = 0.0
        self._round: _Round | None = None

    async def step(self) -> None:
        """Count the next slice, unless a pause is due.

        Raises:
            TransientError, FatalError: the query failed; the next step continues the round.
        """
        if monotonic() < self._rest_until:
            return
        if self._round is None:
            self._round = _Round(await self._table.pages())
        end = min(self._round.next_page + self._slice_pages, self._round.pages)
        found = await self._table.count(self._round.next_page, end)
        if found is None:
            self._slice_pages = max(1, self._slice_pages // 2)
            return
        for status, version, config_status, count in found.counts:
            self._round.by_status[status] += count
            known = version in self._round.by_version or len(self._round.by_version) < _VERSIONS_COUNTED
            self._round.by_version[version if known else OTHER_VERSIONS] += count
            self._round.by_config_status[config_status] += count
        self._round.next_page = end
        self._adapt(found.seconds, most=self._round.pages)
        if end == self._round.pages:
            self._publish(self._round)

    def _adapt(self, took_s: float, *, most: int) -> None:
        """Size the next slice for the target duration."""
        factor = min(_TARGET_S / max(took_s, 0.001), _MOST_GROWTH)
        self._slice_pages = max(1, min(int(self._slice_pages * factor), max(most, _FIRST_PAGES)))

    def _publish(self, found: _Round) -> None:
        total = found.by_status.total()
        del found.by_version[OTHER_VERSIONS]
        named = dict(found.by_version.most_common(_VERSIONS_NAMED))
        rest = total - sum(named.values())
        self.latest = Counts(
            endpoints=total,
            by_status=dict(found.by_status.most_common()),
            by_version=named | ({OTHER_VERSIONS: rest} if rest else {}),
            by_config_status=dict(found.by_config_status.most_common()),
            counted_at=datetime.now(UTC),
        )
        now = monotonic()
        self._rest_until = now + max(_REST_S, now - found.began)
        self._round = None
