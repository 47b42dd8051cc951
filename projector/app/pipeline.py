"""Overlaps consecutive batches: one is committed while the next is folded and the one after that is read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import NamedTuple

from projector.app.ports import Rows
from projector.app.projection import Batch, FoldedBatch, Outcome, Projection


class Processed(NamedTuple):
    """A batch that is committed."""

    batch: Batch
    outcome: Outcome


async def run_pipeline(
    projection: Projection, rows: Rows, batches: AsyncGenerator[Batch, None]
) -> AsyncGenerator[Processed, None]:
    """Fold and commit batches, and yield the outcome of each, in order.

    Endpoints are loaded from `rows` outside the transactions;
    if a rebuild or a retry has changed rows since, `Projection.process` folds the batch again.
    An error from `batches` is raised after everything before it is committed.

    Raises:
        TransientError, FatalError: from the batches, `Projection.fold_ahead` and `Projection.process`;
            outcomes yielded before it remain valid.
    """
    # If the caller leaves early, the pipeline must release the batches before they are closed.
    async with aclosing(batches), aclosing(_read_ahead(batches)) as read:

        async def fold_next(previous: FoldedBatch | None) -> FoldedBatch | None:
            batch = await anext(read, None)
            return None if batch is None else await projection.fold_ahead(batch, rows, previous)

        upcoming = asyncio.create_task(fold_next(None))
        try:
            folded = await upcoming
            while folded is not None:
                upcoming = asyncio.create_task(fold_next(folded))
                outcome = await projection.process(folded.batch, folded)
                yield Processed(folded.batch, outcome)
                folded = await upcoming
                if folded is not None and outcome.refolded:
                    folded = await projection.fold_ahead(folded.batch, rows, None)
        finally:
            await _end(upcoming)


async def _read_ahead(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
    """Yield batches, and read the next one while one is processed."""

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
