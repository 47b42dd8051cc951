"""The writer's connection, and what is read and written outside the transactions of batches."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from projector.domain.checkpoint import Checkpoint
from projector.storage import checkpoints, locks, migrate, statements
from projector.storage.connection import connect
from projector.storage.failures import translated
from projector.storage.unit_of_work import UnitOfWork, transaction
from projector.storage.wire import set_codecs

WRITER_SETTINGS: Mapping[str, str] = {
    # The statements of the hot path are planned once and always reach rows by the primary key:
    # a plan that suits one batch size must not turn into a scan of the whole table for another.
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    # A paused or vanished projector must not hold the checkpoint for ever.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "10s",
}


class Store:
    """Where a projection is kept; opened before use and again after an error."""

    def __init__(self, url: str) -> None:
        """Remember where the database is: nothing is opened yet."""
        self._url = url
        self._connection: Any = None

    async def open(self) -> None:
        """Connect, or connect anew.

        Raises:
            NotMigratedError: the tables are not those of this version.
            DatabaseUnavailableError, DatabaseRefusedError: as their names say.
        """
        await self.close()
        connection = await connect(self._url, purpose="writer", settings=WRITER_SETTINGS)
        try:
            with translated():
                await migrate.check(connection)
                await set_codecs(connection)
                await connection.execute(statements.STAGE)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def close(self) -> None:
        """Close the connection at once; what was not committed is rolled back."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def lead(self) -> bool:
        """Try to become the one projector that works; see `locks.lead`."""
        with translated():
            return await locks.lead(self._connection)

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a transaction on `endpoint_state`; see `unit_of_work.transaction`."""
        return transaction(self._connection, UnitOfWork)

    async def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint, or None if nothing was ever folded."""
        with translated():
            return await checkpoints.read(self._connection)

    async def begin(self, checkpoint: Checkpoint) -> None:
        """Write the first checkpoint, unless another projector was quicker."""
        with translated():
            await checkpoints.begin(self._connection, checkpoint)
