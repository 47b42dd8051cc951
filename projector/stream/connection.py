"""The connection to NATS, and what its errors mean."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from projector.errors import BrokerRefusedError, BrokerUnavailableError, ProjectorError

_CONNECT_TIMEOUT_S = 5
_PING_INTERVAL_S = 5  # two unanswered ones end a half-open connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where NATS is and how to get in."""

    urls: tuple[str, ...]
    """May hold a user and a password or a token: never to be shown."""
    credentials: Path | None = None


class _Client(Client):
    """A client that a malformed message cannot stop.

    Anybody who may publish can store a subject that is not UTF-8, or headers that are none.
    The stock client's read loop ends on the first and stays connected, deaf:
    https://github.com/nats-io/nats.py, `Client._read_loop`.
    """

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return self.msg_class(
            subject=subject.decode("utf-8", "surrogateescape"),
            reply=reply.decode("utf-8", "surrogateescape"),
            data=data,
            headers=headers,
            _client=self,
            _sid=sid,
        )

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (IndexError, ValueError):
            return None


async def connect(broker: Broker, *, name: str, on_closed: Callable[[], Awaitable[None]] | None = None) -> Client:
    """Connect to NATS.

    The client does not reconnect by itself: whoever uses it begins anew,
    since nothing that was known of the stream before can be trusted after.

    Raises:
        BrokerUnavailableError: no server can be reached now.
        BrokerRefusedError: they will not let us in.
    """
    client = _Client()
    with_credentials: dict[str, Any] = (
        {} if broker.credentials is None else {"user_credentials": str(broker.credentials)}
    )
    async with translated():
        await client.connect(
            servers=list(broker.urls),
            name=name,
            allow_reconnect=False,
            connect_timeout=_CONNECT_TIMEOUT_S,
            ping_interval=_PING_INTERVAL_S,
            error_cb=_ignore,  # what fails reaches us through the call that failed, or through on_closed
            closed_cb=on_closed,
            **with_credentials,
        )
    return client


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raise errors of the client as errors of the three families."""
    try:
        yield
    except ProjectorError:
        raise
    except (nats.errors.AuthorizationError, nats.errors.InvalidUserCredentialsError) as error:
        raise BrokerRefusedError(f"NATS will not let us in: {error}; check PROJECTOR_NATS_CREDENTIALS") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        if "authorization" in str(error).lower():
            raise BrokerRefusedError(f"NATS will not let us in: {error}; check PROJECTOR_NATS_CREDENTIALS") from error
        raise BrokerUnavailableError(f"NATS is not reachable: {_line(error)}") from error


async def _ignore(error: Exception) -> None:
    del error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
