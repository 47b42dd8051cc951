"""The connection to NATS, and what its errors mean."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, TypeAlias

import nats.errors
import nats.js.errors
import nats.protocol.parser
import nkeys
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js.api import DEFAULT_PREFIX

from projector.errors import (
    BrokerLoginError,
    BrokerRefusedError,
    BrokerUnavailableError,
    NotPermittedError,
    ProjectorError,
    SettingError,
    one_line,
)
from projector.stream.jetstream_errors import jetstream_error

_CONNECT_TIMEOUT_S = 5  # to one server
_CONNECT_WITHIN_S = 10  # to any server: the client would try each of them twice
_ANSWERED_S = 3.0  # a cluster that is electing a leader never answers
_PING_INTERVAL_S = 5  # two unanswered pings end a half-open connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where NATS is, and how to log in."""

    urls: tuple[str, ...]
    """May contain a user and a password, or a token: never show or log it."""
    credentials: Path | None = None
    """A user's JWT and seed."""
    nkey: Path | None = None
    """A user's seed."""
    tls_ca: Path | None = None
    """Certificates to trust, instead of the system's."""
    tls_certificate: Path | None = None
    """Client certificate, for servers that require one, with its key."""
    tls_key: Path | None = None
    api_prefix: str = DEFAULT_PREFIX
    """Subject prefix of the JetStream API; another domain's, or one that the account imports, has another prefix."""

    def login(self) -> dict[str, Any]:
        """Return the login options of the client, after checking the files.

        The client would loop forever on a file that has no JWT.

        Raises:
            SettingError: a file cannot be used; the text does not show its content.
        """
        login: dict[str, Any] = {}
        if self.credentials is not None:
            content = _read(self.credentials, "PROJECTOR_NATS_CREDENTIALS")
            seed = _SEED.search(content)
            if _JWT.search(content) is None or seed is None:
                raise SettingError("the file of PROJECTOR_NATS_CREDENTIALS does not hold a user's JWT and seed")
            _check_seed(seed[1], "PROJECTOR_NATS_CREDENTIALS")
            login["user_credentials"] = str(self.credentials)
        if self.nkey is not None:
            _check_seed(_read(self.nkey, "PROJECTOR_NATS_NKEY").strip(), "PROJECTOR_NATS_NKEY")
            login["nkeys_seed"] = str(self.nkey)
        return login

    @property
    def requires_tls(self) -> bool:
        """Whether the connection must be encrypted before anything is sent."""
        return any(url.startswith(("tls://", "wss://")) for url in self.urls) or any(
            (self.tls_ca, self.tls_certificate, self.tls_key)
        )

    def tls_context(self) -> ssl.SSLContext:
        """Return the TLS context.

        Raises:
            SettingError: a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_certificate is not None:
                context.load_cert_chain(self.tls_certificate, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise SettingError(f"the TLS files of PROJECTOR_NATS_TLS_… cannot be used: {error}") from error
        return context


# The client searches with the same expressions.
_JWT = re.compile(rb"BEGIN NATS USER JWT.*\n(.+)\n")
_SEED = re.compile(rb"BEGIN USER NKEY SEED.*\n(.+)\n")


def _read(file: Path, variable: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingError(f"the file of {variable} cannot be read: {error}") from error


def _check_seed(seed: bytes, variable: str) -> None:
    try:
        nkeys.from_seed(bytearray(seed)).wipe()
    except (nkeys.NkeysError, ValueError):
        raise SettingError(f"the file of {variable} does not hold the seed of an nkey") from None


# A subject ends at a space or a tab. The client's expressions end it at any white space,
# so a message whose subject has a form feed would end the connection on every delivery.
_MSG = re.compile(rb"\AMSG[ \t]+([^ \t\r\n]+)[ \t]+(\S+)[ \t]+((\S+)[ \t]+)?(\d+)\r\n")
_HMSG = re.compile(rb"\AHMSG[ \t]+([^ \t\r\n]+)[ \t]+(\S+)[ \t]+((\S+)[ \t]+)?(\d+)[ \t]+(\d+)\r\n")


class _Parser(nats.protocol.parser.Parser):
    """The client's parser with these two expressions instead of its own, for this package's connections only."""

    parse = FunctionType(
        nats.protocol.parser.Parser.parse.__code__,
        vars(nats.protocol.parser) | {"MSG_RE": _MSG, "HMSG_RE": _HMSG},
        argdefs=nats.protocol.parser.Parser.parse.__defaults__,
    )


Receiver: TypeAlias = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Takes subject, reply subject, payload and headers of a message, undecoded."""

OnFailure: TypeAlias = Callable[[ProjectorError], None]
"""Called when the connection is lost, or a subject is not permitted."""

_VIOLATION = re.compile(r"Permissions Violation for (Publish|Subscription) to \"(.*?)\"", re.IGNORECASE)
_DOING = {"publish": "publish to", "subscription": "subscribe to"}


class RawClient(Client):
    """A client that delivers messages undecoded, and whose requests fail as soon as an answer is impossible.

    The stock client decodes subjects and headers as it reads.
    Any publisher can store a subject that is not UTF-8, or malformed headers:
    the stock client's read loop ends at such a message, while the connection stays open.
    The stock client also builds an object for each message and passes it through a queue and a task,
    which costs more than the rest of the delivery.
    Its requests wait for their timeout even if they are not permitted, or the connection is lost.
    """

    requires_tls = False

    def __init__(self, api_prefix: str = DEFAULT_PREFIX) -> None:
        """Begin without a connection."""
        super().__init__()
        self._ps = _Parser(self)
        self._failure_listeners: list[OnFailure] = []
        self._receivers: dict[int, Receiver] = {}
        self.api_prefix = api_prefix
        self.api = self.jetstream(prefix=api_prefix, timeout=_ANSWERED_S)
        """The JetStream API."""

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server reported about itself when the client connected."""
        return self._server_info

    async def ask(self, what: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request to the JetStream API, and return the whole answer: the client library drops fields.

        Raises:
            nats.js.errors.APIError: JetStream refuses the request, or does not answer at this prefix.
        """
        payload = b"" if request is None else json.dumps(request).encode()
        try:
            reply = await self.request(f"{self.api_prefix}.{what}", payload, timeout=_ANSWERED_S)
        except nats.errors.NoRespondersError as error:
            raise nats.js.errors.ServiceUnavailableError from error
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            raise nats.js.errors.APIError.from_error(answer["error"])
        return answer

    @property
    def server_version(self) -> tuple[int, ...]:
        """The version of the server: major, minor and patch."""
        return tuple(map(int, re.findall(r"\d+", self.server_info["version"])[:3]))

    def abandon(self) -> None:
        """Close the socket of a failed connection attempt, which the stock client leaves open."""
        if self._transport:
            self._transport.close()  # type: ignore[no-untyped-call]

    async def on_closed(self) -> None:
        """Report that the connection is closed."""
        self._fail(BrokerUnavailableError("the connection to NATS was lost"))

    def _fail(self, error: ProjectorError) -> None:
        for answer in list(self._resp_map.values()):
            if not answer.done():
                answer.set_exception(error)
        for listener in self._failure_listeners:
            listener(error)

    def on_failure(self, listener: OnFailure) -> None:
        """Call a listener when the connection is lost, or when a subject is not permitted."""
        self._failure_listeners.append(listener)

    async def subscribe_raw(self, subject: str, receiver: Receiver) -> Subscription:
        """Subscribe, and pass messages to a receiver as they arrive."""
        subscription = await self.subscribe(subject)
        self._receivers[subscription._id] = receiver  # noqa: SLF001 - it has no public name
        return subscription

    async def unsubscribe_raw(self, subscription: Subscription) -> None:
        """Unsubscribe; messages in flight are dropped."""
        del self._receivers[subscription._id]  # noqa: SLF001 - it has no public name
        await subscription.unsubscribe()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        receiver = self._receivers.get(sid)
        if receiver is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            receiver(subject, reply, data, headers)

    async def _process_err(self, err_msg: str) -> None:
        # The parser passes the text in lower case, but subjects are case-sensitive.
        line = nats.protocol.parser.ERR_RE.match(self._ps.buf)
        said = err_msg if line is None else line[1].decode("utf-8", "replace")
        violation = _VIOLATION.search(said)
        if violation is None:
            await super()._process_err(err_msg)
            return
        what, subject = violation.groups()
        self._fail(NotPermittedError(_DOING[what.lower()], subject))

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # If the server, or an impostor, offers no TLS, the stock client sends even the password unencrypted.
        if initial_connection and self.requires_tls and not info.get("tls_required"):
            raise BrokerRefusedError(
                "TLS is required by the settings, but the NATS server does not offer it; enable it there, "
                "or correct PROJECTOR_NATS_URL and PROJECTOR_NATS_TLS_…"
            )
        await super()._process_info(info, initial_connection)


async def connect(broker: Broker, *, name: str) -> RawClient:
    """Connect to NATS.

    The client does not reconnect by itself: the caller starts over,
    since nothing it knew about the stream can be trusted after a reconnect.

    Raises:
        BrokerUnavailableError: no server can be reached now.
        BrokerRefusedError: the servers refuse the connection.
        SettingError: a file that the settings name cannot be used.
    """
    client = RawClient(broker.api_prefix)
    client.requires_tls = broker.requires_tls
    login = broker.login()
    if broker.requires_tls:
        login["tls"] = broker.tls_context()
    failures: list[Exception] = []

    async def remember(error: Exception) -> None:
        # While connecting, only this callback reports errors; later, the failed call or on_failure does.
        failures[:] = [error]

    try:
        async with translated(failures), asyncio.timeout(_CONNECT_WITHIN_S):
            await client.connect(
                servers=list(broker.urls),
                name=name,
                allow_reconnect=False,
                # One attempt per server: by default the client retries each for two minutes, and with 0 forever.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=_CONNECT_TIMEOUT_S,
                ping_interval=_PING_INTERVAL_S,
                error_cb=remember,
                closed_cb=client.on_closed,
                **login,
            )
    except BrokerUnavailableError as error:
        client.abandon()
        if client.server_info.get("tls_verify") and broker.tls_certificate is None:
            raise BrokerUnavailableError(
                f"{error}; the server requires a client certificate: set PROJECTOR_NATS_TLS_CERTIFICATE "
                "and PROJECTOR_NATS_TLS_KEY"
            ) from error
        raise
    except BaseException:
        client.abandon()
        raise
    return client


@asynccontextmanager
async def connected(broker: Broker, *, name: str) -> AsyncIterator[RawClient]:
    """Connect for the length of a block; see `connect`."""
    client = await connect(broker, name=name)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def translated(failures: Sequence[Exception] = ()) -> AsyncIterator[None]:
    """Raise errors of the client as errors of the three families, preferring the last of `failures` as the cause.

    It also preserves cancellations: the client uses `asyncio.wait_for`,
    which in Python 3.11 drops a cancellation that arrives together with the result.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task is not None else 0
    try:
        yield
    except ProjectorError:
        raise
    except (nats.errors.Error, OSError, TimeoutError) as error:
        cause = failures[-1] if failures else error
        reason = one_line(cause)
        refused = isinstance(cause, nats.errors.AuthorizationError | nats.errors.InvalidUserCredentialsError)
        if refused or "authorization" in reason.lower():
            raise BrokerLoginError(
                f"NATS refuses the login: {reason}; check user and password, or the token, in PROJECTOR_NATS_URL, "
                "or PROJECTOR_NATS_CREDENTIALS or PROJECTOR_NATS_NKEY"
            ) from error
        if isinstance(cause, ssl.SSLError):
            raise BrokerUnavailableError(
                f"no TLS connection to NATS: {reason}; PROJECTOR_NATS_TLS_CA names the certificates to trust, "
                "and the server's certificate has to name the host of PROJECTOR_NATS_URL"
            ) from error
        if isinstance(cause, nats.js.errors.NoStreamResponseError):
            raise BrokerUnavailableError(
                "no stream stores the events; create one with `projector init`, or connect to the server that has it"
            ) from error
        if isinstance(cause, nats.js.errors.APIError):
            raise jetstream_error(cause) from error
        raise BrokerUnavailableError(f"NATS is not reachable: {reason}") from error
    finally:
        if task is not None and task.cancelling() > cancellations:
            raise asyncio.CancelledError
