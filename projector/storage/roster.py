"""The workers of a projection with several shards, and the shards that none of them leads."""

from projector.domain.shards import Muster
from projector.storage import checkpoints, locks, version
from projector.storage.connection import Connection, connect, disconnect, of_this_process
from projector.storage.failures import translated
from projector.storage.store import LEADER_SETTINGS

_COMMAND_TIMEOUT_S = 10.0


class Roster:
    """The registration of a worker, which lasts as long as a connection; opened before use and again after an error."""

    def __init__(self, url: str, shards: int) -> None:
        """Open nothing yet."""
        self._url = url
        self._shards = shards
        self._connection: Connection
        self._opened: list[Connection] = []

    async def open(self) -> None:
        """Connect, or reconnect, and register this worker; raises ShardsChangedError."""
        await self.close()
        self._connection = connection = await connect(
            self._url, purpose=of_this_process("worker"), settings=LEADER_SETTINGS, command_timeout_s=_COMMAND_TIMEOUT_S
        )
        self._opened.append(connection)
        with translated():
            await version.check(connection)
            await locks.register_worker(connection)
            await checkpoints.check_shards(connection, self._shards)

    async def close(self) -> None:
        """Disconnect at once, which ends the registration."""
        while self._opened:
            self._opened.pop().terminate()

    async def leave(self) -> None:
        """Disconnect, and wait until the server has ended the registration; does nothing if not connected."""
        try:
            if self._opened:
                await disconnect(self._connection)
        finally:
            await self.close()

    async def look(self) -> Muster:
        """Return how many workers there are, and which shards have no leader."""
        with translated():
            return await locks.muster(self._connection, self._shards)
