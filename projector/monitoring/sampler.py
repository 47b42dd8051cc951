"""Samples the stream and the database every few seconds, over connections that stay open."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from projector.app.status import Status, StreamStats, status
from projector.monitoring.counting import Counting, Counts
from projector.monitoring.ports import Database, OpenStats

SAMPLE_PERIOD_S = 5.0
_ANSWER_S = 5.0
"""How long a sample may take."""
_FRESH_PERIODS = 3
_COUNT_EVERY_S = 1.0
_DEAD_LETTERS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The state at one moment."""

    status: Status
    latest_dead_letters: Sequence[Mapping[str, Any]]
    sampled_at: datetime


class Sampler:
    """Keeps the latest sample, and why the last one failed."""

    def __init__(
        self,
        open_stats: OpenStats,
        database: Database,
        *,
        name: str,
        rules_version: int,
        period_s: float,
    ) -> None:
        """Connect to nothing yet; `name` is the name of the stream."""
        self.latest: Sample | None = None
        self.error: str | None = None
        """Why the last sample failed; None: it did not."""
        self.counting = Counting(database)
        self._open_stats = open_stats
        self._database = database
        self._connections = AsyncExitStack()
        self._stats: StreamStats | None = None
        self._name = name
        self._rules_version = rules_version
        self._period_s = period_s
        self._succeeded_at: float | None = None
        self._count_from = 0.0

    @property
    def fresh(self) -> bool:
        """Whether the latest sample is recent enough to rely on."""
        limit_s = _FRESH_PERIODS * max(self._period_s, _ANSWER_S)
        return self._succeeded_at is not None and monotonic() - self._succeeded_at <= limit_s

    async def run(self, heard: Callable[[Status | None], None], counted: Callable[[Counts], None]) -> None:
        """Sample until cancelled.

        Calls `heard` after each sample, with None if it failed, and `counted` after each complete count.
        """
        try:
            while True:
                due = monotonic() + self._period_s
                await self._attempt(self._sample)
                heard(None if self.error or self.latest is None else self.latest.status)
                while (left := due - monotonic()) > 0:
                    await asyncio.sleep(min(_COUNT_EVERY_S, left))
                    if self._stats is not None:
                        before = self.counting.latest
                        await self._attempt(self._count)
                        if self.counting.latest is not None and self.counting.latest is not before:
                            counted(self.counting.latest)
        finally:
            await self._close()

    async def _attempt(self, ask: Callable[[], Any]) -> None:
        """Run a query, and reconnect before the next one if it failed."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                await ask()
        except TimeoutError:
            await self._failed(f"the stream and the database did not answer within {_ANSWER_S:g} s")
        except Exception as error:  # noqa: BLE001 - the HTTP server must go on
            await self._failed(str(error) or type(error).__name__)

    async def _failed(self, why: str) -> None:
        self.error = why
        await self._close()

    async def _sample(self) -> None:
        if self._stats is None:
            self._connections.push_async_callback(self._database.close)  # added first, since opening may be cancelled
            await self._database.open()
            self._stats = await self._connections.enter_async_context(self._open_stats())
        found = await status(self._name, self._stats, self._database.summary, rules_version=self._rules_version)
        dead_letters = await self._database.latest_dead_letters(_DEAD_LETTERS_SHOWN) if found.dead_letters else ()
        self.latest = Sample(status=found, latest_dead_letters=dead_letters, sampled_at=datetime.now(UTC))
        self._succeeded_at = monotonic()
        self.error = None

    async def _count(self) -> None:
        """Count a slice, at most once per second."""
        if (now := monotonic()) >= self._count_from:
            self._count_from = now + _COUNT_EVERY_S
            await self.counting.step()

    async def _close(self) -> None:
        self._stats = None
        with suppress(Exception):
            async with asyncio.timeout(_ANSWER_S):
                await self._connections.aclose()
