"""Connections to Postgres: raw ones for the hot path, an engine for everything else."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from projector.storage.failures import translated

_CONNECT_TIMEOUT_S = 10.0
_DISCONNECT_TIMEOUT_S = 5.0
_STATEMENTS_KEPT = 100

Connection = asyncpg.Connection


async def connect(
    url: str,
    *,
    purpose: str,
    settings: Mapping[str, str] | None = None,
    command_timeout_s: float | None = None,
    keep_statements: bool = True,
) -> Any:
    """Open a connection; `purpose` shows in `pg_stat_activity.application_name`.

    `command_timeout_s` ends waiting for a server that has vanished, so it is to be longer than the server's own limits.
    Without `keep_statements` nothing is prepared for longer than a transaction.

    Raises:
        DatabaseUnavailableError: the server cannot be reached now.
        DatabaseRefusedError: it will not let us in.
    """
    with translated():
        return await asyncpg.connect(
            url,
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=command_timeout_s,
            statement_cache_size=_STATEMENTS_KEPT if keep_statements else 0,
            server_settings={"application_name": f"projector {purpose}", **(settings or {})},
        )


async def disconnect(connection: Any) -> None:
    """Close a connection, and return when the server has let go of its locks: the next command may want them."""
    with suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError, TimeoutError):
        await connection.close(timeout=_DISCONNECT_TIMEOUT_S)


@asynccontextmanager
async def engine_connection(
    url: str, *, purpose: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator[AsyncConnection]:
    """Open a SQLAlchemy connection for the length of a block; committing is the caller's.

    Raises:
        The same as `connect`, also for what is executed within the block.
    """

    async def creator() -> Any:
        return await connect(url, purpose=purpose, settings=settings)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=creator, poolclass=NullPool)
    try:
        with translated():
            async with engine.connect() as connection:
                yield connection
    finally:
        await engine.dispose()
