"""Pulls the messages of a JetStream consumer, in order.

It implements the pull protocol itself (NATS ADR-37: overlapping requests, idle heartbeats, a watchdog for missed
ones), several times as fast as the client library's `fetch`.
Consumer sequences show whether deliveries are continuous.
After a hole, a redelivery or silence, the consumer raises an error until the next `seek`.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import NamedTuple

from nats.aio.subscription import Subscription

from projector.domain.messages import Delivery, Message
from projector.errors import DeliveryInterruptedError, ProjectorError
from projector.stream.connection import RawClient, translated
from projector.stream.consumer_state import ConsumerState
from projector.stream.headers import parse_headers, parse_status
from projector.stream.units import NS_PER_MS, NS_PER_S

HEARTBEAT_S = 2.0
_OVERDUE_S = 2.5 * HEARTBEAT_S
_IDLE_S = 1.0
PULL_EXPIRES_S = 30.0
_PULL_MAX_BYTES = 16 * 1024 * 1024  # two requests may be open, and as many messages again buffered
_MOST_REQUESTS = 100  # open requests if the server limits their size; by default the server allows 512
_LARGE = "Message Size Exceeds MaxBytes"
_ACK_PREFIX = b"$JS.ACK."
_SHORT_ACK_TOKENS = 9


class _Received(NamedTuple):
    message: Message
    acknowledge_to: bytes
    pending: int


class PullConsumer(ABC):
    """Delivers the messages of one consumer after a position.

    Every method raises BrokerUnavailableError if the connection is lost.
    """

    def __init__(self, client: RawClient, stream: str, *, batch_size: int) -> None:
        """Use a connected client; `next` returns at most `batch_size` messages, and twice as many may be buffered."""
        self._client = client
        self._stream = stream
        self._batch_size = batch_size
        self._buffer: deque[_Received] = deque()
        self._news = asyncio.Event()
        self._consumer: ConsumerState | None = None
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._requested = 0
        self._is_large = False
        """Whether the buffer has as many bytes as a request allows, but few messages."""
        self._received = 0
        """Consumer sequence of the last message received."""
        self._heard_at = 0.0
        self._fault: ProjectorError | None = None
        client.on_failure(self._fail)

    @abstractmethod
    async def _place(self, after: int) -> ConsumerState:
        """Return a consumer that delivers what follows a position, with nothing in flight."""

    @abstractmethod
    async def count_pending(self) -> int:
        """Return how many matching messages `next` has not returned yet.

        Raises:
            DeliveryInterruptedError: `seek` has to be called again.
        """

    @abstractmethod
    async def discard(self) -> None:
        """Discard the consumer, so that the next `seek` of any client creates another one."""

    async def seek(self, after: int) -> int:
        """Continue after a position; return how many matching messages follow it.

        Raises:
            StreamMissingError: the stream does not exist.
        """
        async with translated():
            self._consumer = info = await self._place(after)
            self._buffer.clear()
            self._requested = 0
            self._is_large = False
            self._received = info.sent
            self._fault = None
            if self._subscription is not None:
                await self._client.unsubscribe_raw(
                    self._subscription
                )  # messages still in flight belong to the previous position
            self._inbox = self._client.new_inbox()
            self._subscription = await self._client.subscribe_raw(self._inbox, self._receive)
            await self._pull()
        return info.pending

    async def next(self, linger_s: float) -> Delivery | None:
        """Wait for messages and return a delivery, which waits up to `linger_s` after its first message to fill.

        A delivery has at most as many bytes as two requests allow.

        Returns None if nothing arrives for about a second, so that the caller can tell an idle stream from a stuck one.

        Raises:
            DeliveryInterruptedError: `seek` has to be called again.
        """
        idle_until = monotonic() + _IDLE_S
        deadline = None
        while len(self._buffer) < self._batch_size and not (self._is_large and self._buffer):
            self._news.clear()
            self._check()
            await self._pull()
            if self._buffer and deadline is None:
                deadline = monotonic() + linger_s
            try:
                async with asyncio.timeout((deadline or idle_until) - monotonic()):
                    await self._news.wait()
            except TimeoutError:
                if self._buffer:
                    break
                now = monotonic()
                if now > idle_until + _IDLE_S:
                    self._heard_at = now  # this process was paused: what has arrived is not read yet
                if now < self._heard_at + _OVERDUE_S:
                    return None
                self._interrupt(f"nothing was heard of consumer {self._name!r} for {_OVERDUE_S} s")
        await self._confirm()
        taken = [self._buffer.popleft() for _ in range(min(len(self._buffer), self._batch_size))]
        self._is_large = False
        await self._pull()
        last = taken[-1]
        return Delivery([received.message for received in taken], last.pending, last.acknowledge_to.decode())

    @abstractmethod
    async def _confirm(self) -> None:
        """Check, before the first delivery is used, that it comes from the consumer that `seek` placed."""

    @property
    def _name(self) -> str:
        return self._consumer.name if self._consumer else ""

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault

    async def _pull(self) -> None:
        """Keep up to two batches requested or buffered, so that the next one arrives while one is folded."""
        largest = self._consumer.largest_request if self._consumer else None
        size = min(self._batch_size, largest or self._batch_size)
        request = {
            "batch": size,
            "max_bytes": max(_PULL_MAX_BYTES, 2 * self._client.max_payload),
            "expires": int(PULL_EXPIRES_S * NS_PER_S),
            "idle_heartbeat": int(HEARTBEAT_S * NS_PER_S),
        }
        room = min(2 * self._batch_size - len(self._buffer), _MOST_REQUESTS * size) - self._requested
        for _ in range(min(room, self._batch_size) // size):
            self._requested += size
            self._heard_at = monotonic()
            async with translated():
                await self._client.publish(
                    f"{self._client.api_prefix}.CONSUMER.MSG.NEXT.{self._stream}.{self._name}",
                    json.dumps(request).encode(),
                    reply=self._inbox,
                )

    def _receive(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        if self._fault is not None:
            return
        self._heard_at = monotonic()
        if not reply.startswith(_ACK_PREFIX):
            self._receive_status(*parse_status(headers or b""))
            return
        # $JS.ACK.[domain.account.]stream.consumer.delivered.stream_seq.consumer_seq.time.pending[.random]
        tokens = reply.split(b".")
        delivered, stream_seq, consumer_seq, time_ns, pending = (
            tokens[4:9] if len(tokens) == _SHORT_ACK_TOKENS else tokens[6:11]
        )
        if int(consumer_seq) != self._received + 1 or delivered != b"1":
            self._interrupt(
                f"consumer {self._name!r} sent {consumer_seq.decode()} after {self._received}, "
                f"delivery {delivered.decode()}"
            )
            return
        self._received += 1
        self._requested -= 1
        message = Message(
            int(stream_seq),
            int(time_ns) // NS_PER_MS,
            subject.decode("utf-8", "surrogateescape"),
            payload,
            parse_headers(headers) if headers else None,
        )
        self._buffer.append(_Received(message, reply, int(pending)))
        if len(self._buffer) in (1, self._batch_size) or not self._requested:
            self._news.set()

    def _receive_status(self, status: str, description: str, headers: Mapping[str, str]) -> None:
        if status == "100":
            return
        if status in ("404", "408") or description in ("Batch Completed", _LARGE):
            self._is_large |= description == _LARGE
            # The request has ended; the header says how much of it is unanswered, and `next` sends another request.
            self._requested -= int(headers.get("Nats-Pending-Messages", self._requested))
            self._news.set()
            return
        self._interrupt(f"consumer {self._name!r} answered {status or 'nothing'} {description}".rstrip())

    def _interrupt(self, what: str) -> None:
        self._fail(DeliveryInterruptedError(what))

    def _fail(self, error: ProjectorError) -> None:
        """Fail until the next `seek`: messages that are buffered or in flight cannot be trusted."""
        self._buffer.clear()
        if self._fault is None:
            self._fault = error
        self._news.set()
