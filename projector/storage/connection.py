"""Connections to Postgres."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TypeAlias
from urllib.parse import urlsplit

import asyncpg

from projector.storage.failures import translated

Connection: TypeAlias = asyncpg.Connection

_CONNECT_TIMEOUT_S = 10.0  # for all hosts
_DISCONNECT_TIMEOUT_S = 5.0
_TRY_NEXT_HOST = (OSError, asyncpg.CannotConnectNowError, asyncpg.exceptions.TargetServerAttributeNotMatched)
"""Errors of a host that is down, starting, stopping, or not the primary."""


async def connect(
    url: str,
    *,
    purpose: str,
    settings: Mapping[str, str] | None = None,
    command_timeout_s: float | None = None,
    keep_statements: bool = True,
) -> Connection:
    """Open a connection; `purpose` shows in `pg_stat_activity.application_name`.

    `command_timeout_s` detects a server that has vanished, so it must exceed the server's own timeouts.
    Without `keep_statements`, no prepared statement outlives its transaction.
    """
    *others, last = _split_hosts(url)
    connect_to = partial(
        asyncpg.connect,
        timeout=_CONNECT_TIMEOUT_S / (len(others) + 1),
        command_timeout=command_timeout_s,
        statement_cache_size=100 if keep_statements else 0,
        server_settings={"application_name": f"projector {purpose}", **(settings or {})},
    )
    with translated():
        for host_url in others:
            with suppress(*_TRY_NEXT_HOST):
                return await connect_to(host_url)
        return await connect_to(last)


def _split_hosts(url: str) -> list[str]:
    """Return a URL for each host, since the driver's timeout covers all hosts and the first may use it up."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [url]
    return [parts._replace(netloc=f"{login}{at}{host}").geturl() for host in hosts.split(",")]


async def disconnect(connection: Connection) -> None:
    """Close a connection, and wait until the server has released its locks: the next command may need them."""
    with suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError, TimeoutError):
        await connection.close(timeout=_DISCONNECT_TIMEOUT_S)
