"""Appends changes to the stream that stores their subjects, each directly after the one before."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from nats.js.api import RawStreamMsg
from nats.js.errors import APIError, NotFoundError

from projector.domain.broker_info import Coverage
from projector.domain.changes import Appended, ChangeId, LoggedChange
from projector.domain.endpoint import FACETS
from projector.errors import (
    BrokerUnavailableError,
    FeedMovedError,
    FeedStreamMissingError,
    FeedStreamMixedError,
    ProjectorError,
)
from projector.stream import change_messages
from projector.stream import subjects as events_subjects
from projector.stream.connection import Broker, RawClient, connected, translated
from projector.stream.coverage import coverage
from projector.stream.headers import parse_status
from projector.stream.jetstream_errors import (
    DUPLICATE_IN_FLIGHT,
    OTHER_END,
    STREAM_NOT_FOUND,
    jetstream_error,
)

_ANSWERED_S = 5.0
_YIELD_EVERY = 20
"""Yield to the event loop after this many messages."""
_HEADER_BYTES = 1024
"""More than the headers of a message take."""


def default_name(events: str) -> str:
    """Return the name of the stream that `init` creates, given that of the stream of the events."""
    return f"{events}_CHANGES"


def subjects(prefix: str) -> Sequence[str]:
    """Return the subjects of all changes."""
    return [f"{prefix}.{facet.name}.*" for facet in FACETS]


def stores(config: Mapping[str, Any], prefix: str) -> Coverage:
    """Return how much of the changes a stream stores, by its configuration."""
    found = {coverage(config.get("subjects") or (), subject) for subject in subjects(prefix)}
    return found.pop() if len(found) == 1 else Coverage.PARTLY


async def find(client: RawClient, prefix: str, events: str) -> dict[str, Any]:
    """Return the info of the stream that stores every change.

    A stream with the default name is found without the permission to list the others.

    Raises:
        FeedStreamMissingError: there is none.
        FeedStreamMixedError: it stores events as well.
    """
    preferred = default_name(events)
    with suppress(NotFoundError):
        info = await client.ask(f"STREAM.INFO.{preferred}")
        if stores(info["config"], prefix) is Coverage.WHOLLY:
            return _unmixed(info, prefix)
    names = await client.ask("STREAM.NAMES", {"subject": f"{prefix}.>"})
    for name in names["streams"] or ():
        info = await client.ask(f"STREAM.INFO.{name}")
        if stores(info["config"], prefix) is Coverage.WHOLLY:
            return _unmixed(info, prefix)
    raise FeedStreamMissingError(prefix, preferred)


def stores_events(config: Mapping[str, Any]) -> bool:
    """Return whether a stream stores any events, by its configuration."""
    stored = config.get("subjects") or ()
    return any(coverage(stored, one) is not Coverage.NOT_AT_ALL for one in events_subjects.filters())


def _unmixed(info: dict[str, Any], prefix: str) -> dict[str, Any]:
    if stores_events(info["config"]):
        raise FeedStreamMixedError(prefix, info["config"]["name"])
    return info


class ChangeStream:
    """The stream, over a connection of its own.

    Every method raises BrokerUnavailableError or NotPermittedError if NATS cannot do it.
    """

    def __init__(self, client: RawClient, prefix: str, events: str, info: Mapping[str, Any]) -> None:
        """Use a connected client; `events` is the stream of the events, `info` that of the changes."""
        self._client = client
        self._prefix = prefix
        self._events = events
        self.name: str = info["config"]["name"]
        """Name of the stream."""
        limits = (client.max_payload, info["config"].get("max_msg_size", -1))
        self._most_bytes = min(limit for limit in limits if limit > 0) - _HEADER_BYTES
        self._inbox = client.new_inbox()
        self._serial = 0
        self._answers: list[tuple[bytes, bytes | None] | None] = []
        self._missing = 0
        self._news = asyncio.Event()
        self._fault: ProjectorError | None = None
        self._attempt = 0
        """Changes the message ids after a cluster has taken note of ids whose messages it refused."""
        client.on_failure(self._fail)

    async def open(self) -> None:
        """Begin to receive acknowledgements."""
        async with translated():
            await self._client.subscribe_raw(f"{self._inbox}.*", self._receive)

    async def last(self) -> int:
        """Return the sequence of its latest message, of any subject; 0 if it never had one."""
        return int((await self._state())["last_seq"])

    async def newest_first(self) -> AsyncGenerator[ChangeId, None]:
        """Yield the changes that it holds under the prefix, from its end back to its beginning."""
        newest = await self._get(None)
        if newest is None:
            return
        if change := change_messages.identify(newest.data or b""):
            yield change
        first = int((await self._state())["first_seq"])
        for seq in range((newest.seq or 0) - 1, first - 1, -1):
            message = await self._get(seq)
            if message is None or not (message.subject or "").startswith(f"{self._prefix}."):
                continue
            if change := change_messages.identify(message.data or b""):
                yield change

    async def _get(self, seq: int | None) -> RawStreamMsg | None:
        """Return the message with a sequence, or the last one under the prefix; None if there is none."""
        async with translated():
            with suppress(NotFoundError):
                if seq is None:
                    return await self._client.api.get_last_msg(self.name, f"{self._prefix}.>")
                return await self._client.api.get_msg(self.name, seq)
        return None

    async def _state(self) -> dict[str, Any]:
        async with translated():
            state: dict[str, Any] = (await self._client.ask(f"STREAM.INFO.{self.name}"))["state"]
        return state

    async def append(self, changes: Sequence[LoggedChange], after: int | None) -> Appended:
        """Append changes in order, the first one directly after a sequence; None: after any message.

        The server stores a message only if its predecessor is the last one of the stream,
        which two headers ensure: with the sequence alone, a message of another program could take its place.
        """
        self._serial += 1
        self._answers = [None] * len(changes)
        self._missing = len(changes)
        before: str | None = None
        async with translated():
            for number, change in enumerate(changes):
                self._check()
                reply = f"{self._inbox}.{self._serial}-{number}"
                before = await self._publish(change, reply, None if after is None else after + number, before)
                if not number % _YIELD_EVERY:
                    await asyncio.sleep(0)
        await self._await_answers()
        return self._result(after)

    async def _publish(self, change: LoggedChange, reply: str, after: int | None, before: str | None) -> str:
        """Publish a change directly after a sequence and the message with an id; return its own id."""
        message_id = change_messages.message_id(self._events, change)
        if self._attempt:
            message_id += f".{self._attempt}"
        headers = {"Nats-Msg-Id": message_id}
        if after is not None:
            headers["Nats-Expected-Last-Sequence"] = str(after)
        if before is not None:
            headers["Nats-Expected-Last-Msg-Id"] = before
        await self._client.publish(
            change_messages.subject(self._prefix, change),
            change_messages.payload(change, self._most_bytes),
            reply=reply,
            headers=headers,
        )
        return message_id

    async def _await_answers(self) -> None:
        while self._missing:
            before = self._missing
            self._news.clear()
            self._check()
            try:
                async with asyncio.timeout(_ANSWERED_S):
                    await self._news.wait()
            except TimeoutError:
                if self._missing == before:
                    raise BrokerUnavailableError(
                        f"stream {self.name!r} has not acknowledged a message for {_ANSWERED_S:g} s"
                    ) from None
        self._check()

    def _result(self, after: int | None) -> Appended:
        known = True
        for stored, answer in enumerate(self._answers):
            payload, headers = answer or (b"", None)
            if headers is not None and parse_status(headers)[0] == "503":
                return Appended(stored, None, FeedStreamMissingError(self._prefix, default_name(self._events)))
            said = json.loads(payload)
            if "error" in said:
                return Appended(stored, None, self._refusal(said["error"]))
            if said["stream"] != self.name:
                return Appended(stored, None, FeedMovedError(f"stream {said['stream']!r} now stores the changes"))
            if said.get("duplicate"):
                known = False
                if not said["seq"]:
                    return Appended(stored, None, self._refusal({"err_code": DUPLICATE_IN_FLIGHT}))
        last = after + len(self._answers) if known and after is not None else None
        return Appended(len(self._answers), last, None)

    def _refusal(self, error: dict[str, Any]) -> ProjectorError:
        code = error.get("err_code")
        if code == DUPLICATE_IN_FLIGHT:
            self._attempt += 1
        if code in (*OTHER_END, DUPLICATE_IN_FLIGHT):
            return FeedMovedError(f"another program publishes to stream {self.name!r}")
        if code == STREAM_NOT_FOUND:
            return FeedStreamMissingError(self._prefix, default_name(self._events))
        try:
            APIError.from_error(error)
        except APIError as raised:
            return jetstream_error(raised)
        return BrokerUnavailableError(f"JetStream answered: {error}")

    def _receive(self, subject: bytes, _: bytes, payload: bytes, headers: bytes | None) -> None:
        serial, _, number = subject.rpartition(b".")[2].partition(b"-")
        if int(serial) == self._serial and self._answers[int(number)] is None:
            self._answers[int(number)] = (payload, headers)
            self._missing -= 1
            if not self._missing:
                self._news.set()

    def _fail(self, error: ProjectorError) -> None:
        self._fault = error
        self._news.set()

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault


@asynccontextmanager
async def opened(broker: Broker, prefix: str, events: str) -> AsyncIterator[ChangeStream]:
    """Connect, and find the stream that stores the prefix; raises FeedStreamMissingError."""
    async with connected(broker, name="projector publish") as client:
        async with translated():
            info = await find(client, prefix, events)
        stream = ChangeStream(client, prefix, events, info)
        await stream.open()
        yield stream
