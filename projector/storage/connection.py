"""Connections to Postgres: raw ones for the hot path, an engine for everything else."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from projector.storage.failures import translated

_CONNECT_TIMEOUT_S = 10.0  # to any of the hosts
_DISCONNECT_TIMEOUT_S = 5.0
_STATEMENTS_KEPT = 100
_NEXT_PLEASE = (OSError, asyncpg.CannotConnectNowError, asyncpg.exceptions.TargetServerAttributeNotMatched)
"""What one host answers where another may do: it is away, starts or ends, or is not the primary."""

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
    *others, last = _one_by_one(url)

    async def connect_to(one: str) -> Any:
        return await asyncpg.connect(
            one,
            timeout=_CONNECT_TIMEOUT_S / (len(others) + 1),
            command_timeout=command_timeout_s,
            statement_cache_size=_STATEMENTS_KEPT if keep_statements else 0,
            server_settings={"application_name": f"projector {purpose}", **(settings or {})},
        )

    with translated():
        for one in others:
            with suppress(*_NEXT_PLEASE):
                return await connect_to(one)
        return await connect_to(last)


def _one_by_one(url: str) -> list[str]:
    """Return a URL for each host of a URL.

    The driver has one time limit for all of them, which a machine that is switched off would use up.
    """
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [url]
    return [parts._replace(netloc=f"{login}{at}{host}").geturl() for host in hosts.split(",")]


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
