"""Creating the stream, for those who have none yet."""

from nats.js.api import StorageType, StreamConfig
from nats.js.errors import NotFoundError

from projector.stream import subjects
from projector.stream.connection import Broker, connected, translated


async def create_stream(broker: Broker, stream: str) -> bool:
    """Create a stream for all endpoint events unless it exists; return whether it was created.

    It keeps everything for ever: a projection is rebuilt from the first event on.

    Raises:
        BrokerUnavailableError, BrokerRefusedError: as their names say.
    """
    config = StreamConfig(name=stream, subjects=list(subjects.filters()), storage=StorageType.FILE)
    async with connected(broker, name="projector init") as client, translated():
        try:
            await client.api.stream_info(stream)
        except NotFoundError:
            await client.api.add_stream(config)
            return True
        return False
