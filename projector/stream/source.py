"""A JetStream stream as ordered batches, through a durable pull consumer that only follows.

Where to go on is Postgres' to say, so the consumer is put where the checkpoint is and never the other way round.
Messages are pulled by hand (ADR-37: overlapping requests, idle heartbeats, a watchdog for missed ones),
which is several times as fast as the client library's `fetch`.
Deliveries are checked for continuity by consumer sequence:
whatever is skipped, repeated or overdue makes the source refuse to go on until it is positioned again.
"""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, cast

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from projector.domain.messages import Delivery, Message, StreamState
from projector.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
    DeliveryInterruptedError,
    ProjectorError,
    StreamMissingError,
)
from projector.stream.connection import Broker, RawClient, connect, translated
from projector.stream.headers import parse_headers, parse_status

CONSUMER_DESCRIPTION = "Endpoint state projector; its place is that of the checkpoint in Postgres"

_HEARTBEAT_S = 2.0
_OVERDUE_S = 2.5 * _HEARTBEAT_S
_IDLE_S = 1.0
_PULL_EXPIRES_S = 30.0
_PULL_MAX_BYTES = 16 * 1024 * 1024  # two requests may be on their way, and as much again be waiting
_ANSWERED_S = 3.0  # a cluster that is just choosing a leader never answers
_ACK_WAIT_S = 3600.0  # redelivery is of no use to us: a source that lost its place is positioned anew
NANOSECOND = 10**9
_NS_PER_MS = 10**6
_EPOCH = datetime.fromtimestamp(0, UTC)


class JetStreamSource:
    """The messages of one stream that match the subject filters, from a position on."""

    def __init__(
        self, broker: Broker, *, stream: str, consumer: str | None, filters: Sequence[str], batch_size: int
    ) -> None:
        """Remember what to follow: nothing is opened yet.

        `consumer` is the name of the durable consumer; without one, messages are replayed and never acknowledged.
        `batch_size` is the most messages that `next` returns; twice as many may wait in memory.
        """
        self._broker = broker
        self._stream = stream
        self._durable = consumer
        self._consumer = consumer or ""
        self._filters = tuple(filters)
        self._batch_size = batch_size
        self._client: RawClient | None = None
        self._buffer: deque[tuple[Message, bytes, int]] = deque()
        self._news = asyncio.Event()
        self._taken: int | None = None
        """The position behind which `next` goes on."""
        self._placed_at: datetime | None = None
        """When the consumer was created that stands there."""
        self._reset()

    async def open(self) -> None:
        """Connect, or connect anew.

        Raises:
            BrokerUnavailableError, BrokerRefusedError: as their names say.
        """
        await self.close()
        self._reset()
        self._client = await connect(self._broker, name=f"projector {self._durable or 'replay'}", on_failure=self._fail)

    async def close(self) -> None:
        """Disconnect; what waits in memory is forgotten."""
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            await client.close()

    async def state(self) -> StreamState:
        """Return what the stream holds now.

        Raises:
            StreamMissingError: there is no such stream.
            BrokerUnavailableError: as its name says.
        """
        async with translated():
            try:
                info = await self._jetstream.stream_info(self._stream)
            except nats.js.errors.NotFoundError as error:
                raise StreamMissingError(self._stream) from error
        if info.created is None:
            raise BrokerUnavailableError("NATS did not say when the stream was created")
        return StreamState(
            created_at=unix_ms(info.created),
            first=max(info.state.first_seq, 1),
            last=info.state.last_seq,
        )

    async def behind(self, position: int) -> int:
        """Return how many messages of ours the stream holds behind a position.

        Raises:
            StreamMissingError: there is no such stream.
            DeliveryInterruptedError: the source has to be positioned again.
            BrokerUnavailableError: as its name says.
        """
        # Only a consumer counts what matches its filters.
        # The daemon's own, the only one that it needs permissions for, knows what is behind its own place.
        if self._durable is not None and position == self._taken:
            return await self._not_taken()
        async with translated():
            # Another is created for this, and is gone as soon as it has counted.
            info = await self._replay_from(position)
            await self._jetstream.delete_consumer(self._stream, info.name)
        return info.num_pending or 0

    async def oldest_behind(self, position: int) -> int | None:
        """Return when the oldest message of ours behind a position was stored, in Unix ms; None if there is none.

        Raises:
            BrokerUnavailableError: as its name says.
        """
        stored = []
        async with translated():
            for subject in self._filters:
                with suppress(nats.js.errors.NotFoundError):
                    found = await self._jetstream.get_msg(self._stream, position + 1, subject, next=True)
                    if found.time is not None:
                        stored.append(unix_ms(found.time))
        return min(stored, default=None)

    async def message(self, position: int) -> Message | None:
        """Return the message at a position, or None if the stream no longer has it.

        Raises:
            BrokerUnavailableError: as its name says.
        """
        async with translated():
            try:
                raw = await self._jetstream.get_msg(self._stream, position)
            except nats.js.errors.NotFoundError:
                return None
        if raw.time is None:
            raise BrokerUnavailableError("NATS did not say when a message was stored")
        return Message(position, unix_ms(raw.time), raw.subject or "", raw.data or b"", raw.headers)

    async def position(self, after: int) -> int:
        """Go on behind a position: put the consumer there if it is not, and begin to pull.

        Returns how many messages of ours the stream holds behind it.

        Raises:
            StreamMissingError: there is no such stream.
            BrokerUnavailableError: as its name says.
        """
        async with translated():
            info = await (
                self._replay_from(after) if self._durable is None else self._consumer_at(self._durable, after)
            )
            self._reset()
            self._consumer = info.name
            self._consumer_seq = info.delivered.consumer_seq if info.delivered else 0
            self._taken = after
            self._placed_at = info.created
            self._confirmed = self._durable is None
            self._inbox = self._connected.new_inbox()
            await self._connected.subscribe_raw(self._inbox, self._receive)
            await self._pull()
        return info.num_pending or 0

    async def next(self, linger_s: float) -> Delivery | None:
        """Wait for messages and return them: up to a full batch, but no longer than `linger_s` after the first.

        Returns None where nothing came for about a second, so that whoever asked can tell waiting from being stuck.

        Raises:
            DeliveryInterruptedError: the source has to be positioned again.
            BrokerUnavailableError: the connection is gone.
        """
        idle_until = monotonic() + _IDLE_S
        deadline = None
        while len(self._buffer) < self._batch_size:
            self._news.clear()
            if self._fault is not None:
                raise self._fault
            await self._pull()
            if self._buffer and deadline is None:
                deadline = monotonic() + linger_s
            try:
                async with asyncio.timeout((deadline or idle_until) - monotonic()):
                    await self._news.wait()
            except TimeoutError:
                if self._buffer:
                    break
                if monotonic() >= self._heard_at + _OVERDUE_S:
                    self._interrupt(f"nothing was heard of consumer {self._consumer!r} for {_OVERDUE_S} s")
                else:
                    return None
        if not self._confirmed:
            await self._info()
            self._confirmed = True
        taken = [self._buffer.popleft() for _ in range(min(len(self._buffer), self._batch_size))]
        await self._pull()
        last, acknowledge_to, pending = taken[-1]
        self._taken = last.position
        return Delivery([message for message, _, _ in taken], pending, acknowledge_to.decode())

    async def acknowledge(self, delivery: Delivery) -> None:
        """Tell the consumer that a delivery and all before it are done; to be called after the commit.

        Raises:
            BrokerUnavailableError: the connection is gone; nothing is lost, the consumer only lags behind.
        """
        async with translated():
            await self._connected.publish(delivery.acknowledge_to)

    @property
    def _connected(self) -> RawClient:
        if self._client is None or self._client.is_closed:
            raise BrokerUnavailableError("the connection to NATS is closed")
        return self._client

    @property
    def _jetstream(self) -> JetStreamContext:
        return self._connected.jetstream(timeout=_ANSWERED_S)

    def _reset(self) -> None:
        self._buffer.clear()
        self._fault: ProjectorError | None = None
        self._inbox = ""
        self._requested = 0
        self._consumer_seq = 0
        self._taken = None
        self._placed_at = None
        self._confirmed = False
        """Whether it is certain that deliveries come from the consumer that was placed."""
        self._heard_at = 0.0

    async def _replay_from(self, after: int) -> ConsumerInfo:
        """Return a new consumer that acknowledges nothing and goes when it is not used."""
        return await self._create_consumer(
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=after + 1,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=_PULL_EXPIRES_S,
                mem_storage=True,
                **self._filter_config(),
            )
        )

    async def _consumer_at(self, durable: str, after: int) -> ConsumerInfo:
        """Return the durable consumer, standing behind a position with nothing in flight."""
        jetstream = self._jetstream
        wanted = ConsumerConfig(
            durable_name=durable,
            description=CONSUMER_DESCRIPTION,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.ALL,
            ack_wait=_ACK_WAIT_S,
            max_ack_pending=-1,
            **self._filter_config(),
        )
        try:
            found: ConsumerInfo = await jetstream.consumer_info(self._stream, durable)
        except nats.js.errors.NotFoundError:
            pass
        else:
            if _stands_at(found, after) and _same_purpose(found.config, wanted):
                return found
            await jetstream.delete_consumer(self._stream, durable)
        return await self._create_consumer(wanted)

    async def _create_consumer(self, config: ConsumerConfig) -> ConsumerInfo:
        try:
            created: ConsumerInfo = await self._jetstream.add_consumer(self._stream, config)
        except nats.js.errors.NotFoundError as error:
            raise StreamMissingError(self._stream) from error
        if _filters(created.config) != set(self._filters):
            # An older server passes over what it does not know, and would send everybody's events.
            await self._jetstream.delete_consumer(self._stream, created.name)
            raise BrokerRefusedError(
                "this NATS server filters by a single subject only; several PROJECTOR_ORIGINATORS need version 2.10"
            )
        return created

    def _filter_config(self) -> dict[str, Any]:
        # Servers before 2.10 know a single filter only.
        return (
            {"filter_subject": self._filters[0]}
            if len(self._filters) == 1
            else {"filter_subjects": list(self._filters)}
        )

    async def _pull(self) -> None:
        """Keep up to two batches requested or waiting, so that the next is under way while one is folded."""
        if self._requested + len(self._buffer) > self._batch_size:
            return
        request = {
            "batch": self._batch_size,
            "max_bytes": max(_PULL_MAX_BYTES, 2 * self._connected.max_payload),
            "expires": int(_PULL_EXPIRES_S * NANOSECOND),
            "idle_heartbeat": int(_HEARTBEAT_S * NANOSECOND),
        }
        self._requested += self._batch_size
        self._heard_at = monotonic()
        async with translated():
            await self._connected.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
                json.dumps(request).encode(),
                reply=self._inbox,
            )

    def _receive(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        if self._fault is not None:
            return
        self._heard_at = monotonic()
        if not reply.startswith(b"$JS.ACK."):
            self._receive_status(*parse_status(headers or b""))
            return
        # $JS.ACK.[domain.account.]stream.consumer.delivered.stream_seq.consumer_seq.time.pending[.random]
        tokens = reply.split(b".")
        delivered, stream_seq, consumer_seq, time_ns, pending = tokens[4:9] if len(tokens) == 9 else tokens[6:11]  # noqa: PLR2004 - see the line above
        if int(consumer_seq) != self._consumer_seq + 1 or delivered != b"1":
            self._interrupt(
                f"consumer {self._consumer!r} sent {consumer_seq.decode()} after {self._consumer_seq}, "
                f"delivery {delivered.decode()}"
            )
            return
        self._consumer_seq += 1
        self._requested -= 1
        message = Message(
            int(stream_seq),
            int(time_ns) // _NS_PER_MS,
            subject.decode("utf-8", "surrogateescape"),
            payload,
            parse_headers(headers) if headers else None,
        )
        self._buffer.append((message, reply, int(pending)))
        if len(self._buffer) in (1, self._batch_size):
            self._news.set()

    async def _not_taken(self) -> int:
        """Return how many messages the consumer holds for us, has sent or has brought, that `next` has not returned."""
        info = await self._info()
        sent = info.delivered.consumer_seq if info.delivered else 0
        return (info.num_pending or 0) + sent - self._consumer_seq + len(self._buffer)

    async def _info(self) -> ConsumerInfo:
        """Return what the consumer says of itself, and make sure that it is the one that was placed.

        Another one that somebody has put under its name begins to count at 1 as well, wherever in the stream it stands.
        """
        async with translated():
            try:
                info: ConsumerInfo | None = await self._jetstream.consumer_info(self._stream, self._consumer)
            except nats.js.errors.NotFoundError:
                info = None
        if info is None or info.created != self._placed_at:
            self._interrupt(f"somebody has put another consumer in the place of {self._consumer!r}")
        if self._fault is not None:
            raise self._fault
        return cast("ConsumerInfo", info)

    def _receive_status(self, status: str, description: str, headers: Mapping[str, str]) -> None:
        if status == "100":
            return
        if status in ("404", "408") or description in ("Batch Completed", "Message Size Exceeds MaxBytes"):
            # The request has ended, with as much of it unanswered as the header says; `next` makes another.
            self._requested -= int(headers.get("Nats-Pending-Messages", self._requested))
            self._news.set()
            return
        self._interrupt(f"consumer {self._consumer!r} answered {status or 'nothing'} {description}".rstrip())

    def _interrupt(self, what: str) -> None:
        self._fail(DeliveryInterruptedError(what))

    def _fail(self, error: ProjectorError) -> None:
        """Refuse to go on: what is buffered, and what is still on its way, cannot be trusted."""
        self._buffer.clear()
        if self._fault is None:
            self._fault = error
        self._news.set()


def _stands_at(info: ConsumerInfo, position: int) -> bool:
    return info.delivered is not None and info.delivered.stream_seq == position and not info.num_ack_pending


def _same_purpose(found: ConsumerConfig, wanted: ConsumerConfig) -> bool:
    def purpose(config: ConsumerConfig) -> tuple[Any, ...]:
        return (
            config.ack_policy,
            config.max_ack_pending,
            config.deliver_subject,
            config.replay_policy,
            bool(config.headers_only),
            _filters(config),
        )

    return purpose(found) == purpose(wanted)


def _filters(config: ConsumerConfig) -> set[str]:
    return {subject for subject in (config.filter_subject, *(config.filter_subjects or ())) if subject is not None}


def unix_ms(time: datetime) -> int:
    """Return a time in Unix ms."""
    return (time - _EPOCH) // timedelta(milliseconds=1)
