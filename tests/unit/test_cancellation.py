"""A cancelled task ends although the NATS client swallows cancellations."""

import asyncio
from typing import Any

import pytest

from projector.errors import BrokerUnavailableError
from projector.stream.connection import translated


async def cancelled_with(answer: Any) -> asyncio.Task[None]:
    """Cancel a task at the moment its request is answered."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def ask() -> None:
        async with translated():
            await asyncio.wait_for(answered, timeout=10)  # as the client does
        await asyncio.Event().wait()

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    if isinstance(answer, Exception):
        answered.set_exception(answer)
    else:
        answered.set_result(answer)
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    return task


@pytest.mark.parametrize("answer", [None, OSError("the connection was lost")])
async def test_cancellation_that_arrives_with_the_answer_is_not_lost(answer: Any) -> None:
    task = await cancelled_with(answer)
    assert task.cancelled()


async def test_timeout_is_not_a_cancellation() -> None:
    async def ask() -> None:
        async with translated(), asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(BrokerUnavailableError):
        await ask()


async def test_an_outer_timeout_that_arrives_with_the_answer_is_a_timeout() -> None:
    async def ask() -> None:
        async with asyncio.timeout(0.01), translated():
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await ask()
