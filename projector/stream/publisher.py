"""Publishes events into the stream, for the simulator."""

import asyncio
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import PubAck

from projector.errors import ProjectorError
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.connection import Broker, RawClient, connect, translated

_IN_FLIGHT = 2000
_STORED_WITHIN_S = 30.0


class Publisher:
    """Publishes wire records in order, and confirms that they are stored."""

    def __init__(self, broker: Broker, codec: Codec) -> None:
        """Take the settings of the connection; open nothing yet."""
        self._broker = broker
        self._codec = codec
        self._client: RawClient | None = None
        self._jetstream: JetStreamContext | None = None
        self._acknowledgements: list[asyncio.Future[PubAck]] = []

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailableError, BrokerRefusedError: NATS cannot be reached, or refuses the connection.
        """
        self._client = await connect(self._broker, name="projector simulate")
        self._client.on_failure(self._fail)
        self._jetstream = self._client.jetstream(publish_async_max_pending=2 * _IN_FLIGHT)

    async def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.close()

    async def publish(self, originator: str, event_type: str, record: dict[str, Any]) -> None:
        """Publish an event; it is stored once `flush` has returned.

        Raises:
            BrokerUnavailableError, BrokerRefusedError: this event, or one before it, was not stored.
        """
        if self._jetstream is None:
            raise RuntimeError("open the publisher first")
        payload = self._codec.encode(event_type, record)
        async with translated():
            self._acknowledgements.append(
                await self._jetstream.publish_async(subjects.build(originator, event_type), payload)
            )
        if len(self._acknowledgements) >= _IN_FLIGHT:
            await self.flush()

    async def flush(self) -> None:
        """Wait until every published event is stored.

        Raises:
            BrokerUnavailableError, BrokerRefusedError: an event was not stored.
        """
        try:
            async with translated():
                async with asyncio.timeout(_STORED_WITHIN_S):
                    await asyncio.gather(*self._acknowledgements)
        finally:
            self._acknowledgements = []

    def _fail(self, error: ProjectorError) -> None:
        for acknowledgement in self._acknowledgements:
            if not acknowledgement.done():
                acknowledgement.set_exception(error)
