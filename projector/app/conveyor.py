"""Batches one after the other: while one is committed, the next is fetched, decoded, loaded and folded."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from projector.app.ports import Load
from projector.app.projection import Batch, Folded, Outcome, Projection


async def convey(projection: Projection, load: Load, batches: AsyncIterator[Batch]) -> AsyncGenerator[Outcome, None]:
    """Fold and commit batches, and yield what came of each, in their order.

    `load` reads what is committed, beside the transactions: nobody but this projection may be changing rows.

    Raises:
        TransientError, FatalError: as `Projection.commit`; what was yielded before stands.
    """

    async def fold_next(behind: Folded | None) -> Folded | None:
        batch = await anext(batches, None)
        return None if batch is None else await projection.fold(batch, load, behind)

    upcoming = asyncio.create_task(fold_next(None))
    try:
        folded = await upcoming
        while folded is not None:
            upcoming = asyncio.create_task(fold_next(folded))
            outcome = await projection.commit(folded)
            yield outcome
            folded = await upcoming
            if folded is not None and outcome.refolded:
                folded = await projection.fold(folded.batch, load, None)
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
