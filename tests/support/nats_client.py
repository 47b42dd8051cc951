"""A client of NATS for tests that stop its server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client

_WAIT_S = 0.05


@asynccontextmanager
async def lasting_client(url: str) -> AsyncIterator[Client]:
    """Yield a client that reconnects for as long as the block takes; `url` may name several servers."""

    async def expect(error: Exception) -> None:
        del error

    client = await nats.connect(url.split(","), error_cb=expect, reconnect_time_wait=_WAIT_S, max_reconnect_attempts=-1)
    try:
        yield client
    finally:
        await client.close()
        # `close` cancels this task, but an attempt that fails at the same moment swallows that, and nats-py
        # then retries forever: the event loop of the test would wait for it at its end.
        while client._reconnection_task is not None and not client._reconnection_task.done():
            client._reconnection_task.cancel()
            await asyncio.sleep(0)
