"""Batches one after the other: while one is committed, the next is loaded and folded, and the one behind it read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from projector.app.ports import Rows
from projector.app.projection import Batch, Folded, Outcome, Projection


async def run_pipeline(
    projection: Projection, rows: Rows, batches: AsyncIterator[Batch]
) -> AsyncGenerator[Outcome, None]:
    """Fold and commit batches, and yield what came of each, in their order.

    Endpoints are loaded beside the transactions:
    where somebody else has changed rows since, `Projection.commit` folds the batch anew.

    Raises:
        TransientError, FatalError: as the batches, `Projection.fold` and `Projection.commit` do;
            what was yielded before stands.
    """
    async with aclosing(_read_ahead(batches)) as read:

        async def fold_next(previous: Folded | None) -> Folded | None:
            batch = await anext(read, None)
            return None if batch is None else await projection.fold(batch, rows, previous)

        upcoming = asyncio.create_task(fold_next(None))
        try:
            folded = await upcoming
            while folded is not None:
                upcoming = asyncio.create_task(fold_next(folded))
                outcome = await projection.commit(folded)
                yield outcome
                folded = await upcoming
                if folded is not None and outcome.refolded:
                    folded = await projection.fold(folded.batch, rows, None)
        finally:
            await _end(upcoming)


async def _read_ahead(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
    """Yield batches, and have the next one read while one is worked on."""

    async def read() -> Batch | None:
        return await anext(batches, None)

    reading = asyncio.create_task(read())
    try:
        while (batch := await reading) is not None:
            reading = asyncio.create_task(read())
            yield batch
    finally:
        await _end(reading)


async def _end(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
