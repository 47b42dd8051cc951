"""Connections to Postgres."""

import asyncio
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import asyncpg

from projector.errors import DatabaseRefusedError, one_line
from projector.storage.failures import translated

Connection: TypeAlias = asyncpg.Connection

_CONNECT_TIMEOUT_S = 10.0  # for all hosts
_DISCONNECT_TIMEOUT_S = 5.0
_HOSTS = re.compile(r"(\w+://(?:[^/?#]*@)?)([^/?#]*)(.*)", re.DOTALL)
_NO_TRANSACTION_TIMEOUT = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'"
_TRY_NEXT_HOST = (OSError, asyncpg.CannotConnectNowError, asyncpg.exceptions.TargetServerAttributeNotMatched)
"""Errors of a host that is down, starting, stopping, or not the primary."""


def of_this_process(purpose: str) -> str:
    """Return a purpose with the machine and the process, which tells users who leads or works."""
    return f"{purpose} {socket.gethostname()[:30]}:{os.getpid()}"


async def connect(
    url: str,
    *,
    purpose: str,
    settings: Mapping[str, str] | None = None,
    command_timeout_s: float | None = None,
    keep_statements: bool = True,
) -> Connection:
    """Open a connection; `purpose` shows in `pg_stat_activity.application_name`.

    With `settings`, no `transaction_timeout` of the role ends a transaction.
    `command_timeout_s` detects a server that has vanished, so it must exceed the server's own timeouts.
    Without `keep_statements`, no prepared statement outlives its transaction.
    Of several hosts the primary is chosen, unless the URL says otherwise.
    """
    connection = await _connect(
        url,
        command_timeout=command_timeout_s,
        statement_cache_size=100 if keep_statements else 0,
        server_settings={"application_name": f"projector {purpose}", **(settings or {})},
    )
    if settings:
        await _lift_transaction_timeout(connection)
    return connection


async def _connect(url: str, **options: Any) -> Connection:
    *others, last = _split_hosts(url)
    connect_to = partial(
        asyncpg.connect,
        timeout=_CONNECT_TIMEOUT_S / (len(others) + 1),
        **options,
        target_session_attrs=_target(url),
    )
    with translated(), _parameters_explained():
        for host_url in others:
            with suppress(*_TRY_NEXT_HOST):
                return await connect_to(host_url)
        return await connect_to(last)


async def _lift_transaction_timeout(connection: Connection) -> None:
    """Disable the role's `transaction_timeout`, before any transaction that it could end.

    The settings of a connection cannot: servers before 17 do not know it, and reject a connection that sets it.
    """
    try:
        with translated():
            await connection.execute(_NO_TRANSACTION_TIMEOUT)
    except BaseException:
        connection.terminate()
        raise


@contextmanager
def _parameters_explained() -> Iterator[None]:
    """Refuse parameters of the URL that the server rejects: the driver passes on to it whatever it does not know."""
    try:
        yield
    except (asyncpg.UndefinedObjectError, asyncpg.CantChangeRuntimeParamError, asyncpg.DataError) as error:
        raise DatabaseRefusedError(
            f"Postgres refuses a parameter: {one_line(error)}; remove it from PROJECTOR_DATABASE_URL, or correct it"
        ) from error


def _target(url: str) -> str | None:
    """Return which of several hosts to use: after a failover, the first one may be a standby."""
    first, *others = _split_hosts(url)
    query = dict(parse_qsl(urlsplit(first).query))
    if "target_session_attrs" in query or "PGTARGETSESSIONATTRS" in os.environ:
        return None
    return "primary" if others or "," in query.get("host", "") else None


def _split_hosts(url: str) -> list[str]:
    """Return a URL for each host.

    The driver's timeout covers all hosts, and the first may use it up;
    and some versions of Python refuse IPv6 addresses among several hosts.
    """
    before, hosts, after = _HOSTS.fullmatch(url).groups()  # type: ignore[union-attr]
    return [f"{before}{host}{after}" for host in hosts.split(",")]


async def disconnect(connection: Connection) -> None:
    """Close a connection, and wait until the server has released its locks: the next command may need them."""
    with suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError, TimeoutError):
        async with asyncio.timeout(_DISCONNECT_TIMEOUT_S):  # for everything that the driver waits for
            await connection.close()
