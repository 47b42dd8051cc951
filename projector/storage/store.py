"""The writer's connection, and what is read and written outside the transactions of batches."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from projector.domain.checkpoint import Anchor, Checkpoint, Rules
from projector.storage import migrate, statements
from projector.storage.connection import connect
from projector.storage.failures import translated
from projector.storage.unit_of_work import PROJECTION, SHARD, UnitOfWork, transaction
from projector.storage.wire import decode_json, set_codecs

_WRITER_SETTINGS: Mapping[str, str] = {
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
        connection = await connect(self._url, purpose="writer", settings=_WRITER_SETTINGS)
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
        """Try to become the one projector that works; it lasts as long as the connection.

        This lock is the courtesy that keeps a second projector waiting;
        what keeps it from doing harm is the compare-and-set on the checkpoint.
        """
        with translated():
            granted: bool = await self._connection.fetchval(
                "SELECT pg_try_advisory_lock(hashtextextended($1, $2))", f"projector {PROJECTION}", SHARD
            )
        return granted

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a transaction on `endpoint_state`; see `unit_of_work.transaction`."""
        return transaction(self._connection, "endpoint_state")

    async def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint, or None if nothing was ever folded."""
        with translated():
            row = await self._connection.fetchrow(
                "SELECT * FROM projector_checkpoint WHERE projection = $1 AND shard = $2", PROJECTION, SHARD
            )
        return None if row is None else _checkpoint(row)

    async def begin(self, checkpoint: Checkpoint) -> None:
        """Write the first checkpoint, unless another projector was quicker."""
        with translated():
            await self._connection.execute(
                """
                INSERT INTO projector_checkpoint
                (projection, shard, stream, stream_created_at, position, rules_version, revision, originators)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                ON CONFLICT DO NOTHING
                """,
                PROJECTION,
                SHARD,
                checkpoint.stream,
                checkpoint.stream_created_at,
                checkpoint.position,
                checkpoint.rules.version,
                checkpoint.rules.revision,
                checkpoint.rules.originators,
            )


def _checkpoint(row: Mapping[str, Any]) -> Checkpoint:
    stored_at, payload_hash = row["anchor_stored_at"], row["anchor_hash"]
    return Checkpoint(
        stream=row["stream"],
        stream_created_at=row["stream_created_at"],
        rules=Rules(
            version=row["rules_version"],
            revision=row["revision"],
            originators=tuple(row["originators"]),
        ),
        position=row["position"],
        anchor=None if payload_hash is None else Anchor(stored_at=stored_at, payload_hash=payload_hash),
        skipped=decode_json(row["skipped"]),
    )
