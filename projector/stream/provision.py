"""Creating the stream, for those who have none yet."""

from nats.js.api import StorageType, StreamConfig
from nats.js.errors import NotFoundError

from projector.stream import subjects
from projector.stream.connection import Broker, connect, translated


async def create_stream(broker: Broker, stream: str) -> bool:
    """Create a stream for all endpoint events unless it exists; return whether it was created.

    It keeps everything for ever: a projection is rebuilt from the first event on.

    Raises:
        BrokerUnavailableError, BrokerRefusedError: as their names say.
    """
    client = await connect(broker, name="projector init")
    try:
        async with translated():
            jetstream = client.jetstream()
            try:
                await jetstream.stream_info(stream)
            except NotFoundError:
                await jetstream.add_stream(
                    StreamConfig(name=stream, subjects=list(subjects.filters()), storage=StorageType.FILE)
                )
                return True
            return False
    finally:
        await client.close()
