"""A client of NATS for tests that stop its server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext

from tests.support.patience import PATIENCE_S

_WAIT_S = 0.05
_ANSWERED_S = PATIENCE_S / 4
"""A request can be lost with the server that it was sent to: tests that wait for a condition send it again."""


class _PatientClient(Client):
    """A client whose requests to JetStream outlast the stalls of a busy machine."""

    def jetstream(self, **options: Any) -> JetStreamContext:
        return super().jetstream(**{"timeout": _ANSWERED_S, **options})


@asynccontextmanager
async def lasting_client(url: str) -> AsyncIterator[Client]:
    """Yield a client that reconnects for as long as the block takes; `url` may name several servers."""

    async def expect(error: Exception) -> None:
        del error

    client = _PatientClient()
    options: dict[str, Any] = {"reconnect_time_wait": _WAIT_S, "max_reconnect_attempts": -1}
    await client.connect(url.split(","), error_cb=expect, **options)
    try:
        yield client
    finally:
        await client.close()
        # `close` cancels this task, but an attempt that fails at the same moment swallows that, and nats-py
        # then retries forever: the event loop of the test would wait for it at its end.
        while client._reconnection_task is not None and not client._reconnection_task.done():
            client._reconnection_task.cancel()
            await asyncio.sleep(0)
