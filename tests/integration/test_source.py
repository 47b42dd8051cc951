import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ReplayPolicy

from projector.dev.embedded import EmbeddedNats
from projector.domain.messages import Delivery, Message
from projector.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
    DeliveryInterruptedError,
    StreamMissingError,
)
from projector.stream import connection as connection_module
from projector.stream import pull as pull_module
from projector.stream import subjects
from projector.stream.connection import Broker, RawClient, connect
from projector.stream.consumers import DurableConsumer
from projector.stream.view import StreamView
from tests.support.fixtures import Eventually, Publish, Wire
from tests.support.patience import PATIENCE_S
from tests.support.versions import needs_nats

CONSUMER = "test"
(FILTER,) = subjects.filters()
SUBJECT = "kaa.v1.events.kpc.endpoint.connectivity.connected"


class Opened(NamedTuple):
    """A connection with a view of the stream and the durable consumer."""

    client: RawClient
    view: StreamView
    consumer: DurableConsumer


OpenSource = Callable[..., Awaitable[Opened]]
RawPublish = Callable[[bytes], Awaitable[None]]


@pytest.fixture
def jetstream(nats_client: Client) -> JetStreamContext:
    return nats_client.jetstream()


@pytest.fixture
async def open_source(nats_url: str, stream: str) -> AsyncIterator[OpenSource]:
    opened: list[Opened] = []

    async def open_source(*originators: str, batch_size: int = 100) -> Opened:
        filters = subjects.filters(originators)
        client = await connect(Broker(urls=(nats_url,)), name="test")
        consumer = DurableConsumer(client, stream, CONSUMER, filters, batch_size=batch_size)
        opened.append(Opened(client, StreamView(client, stream, filters), consumer))
        return opened[-1]

    yield open_source
    for source in opened:
        await source.client.close()


@pytest.fixture
async def raw_publish(nats_url: str) -> AsyncIterator[RawPublish]:
    """Speaks the protocol directly, to send what no client library would."""
    where = urlsplit(nats_url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')

    async def raw_publish(line: bytes) -> None:
        writer.write(line + b"\r\nPING\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert b"-ERR" not in await reader.readuntil(b"PONG\r\n")

    yield raw_publish
    writer.close()
    await writer.wait_closed()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that expire, and heartbeats that come, within a fraction of a second."""
    monkeypatch.setattr(pull_module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(pull_module, "PULL_EXPIRES_S", 0.3)
    monkeypatch.setattr(pull_module, "_OVERDUE_S", PATIENCE_S)


def numbered(first: int, last: int) -> list[Wire]:
    return [(SUBJECT, b"%d" % number) for number in range(first, last + 1)]


async def delivered(source: Opened, wait_s: float) -> Delivery:
    """The next delivery; a consumer that was idle for a second returns none."""
    async with asyncio.timeout(PATIENCE_S):
        while (delivery := await source.consumer.next(wait_s)) is None:
            pass
    return delivery


async def take(source: Opened, count: int) -> list[Message]:
    """The next messages, acknowledged."""
    taken: list[Message] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(taken) < count:
            delivery = await delivered(source, 0)
            taken += delivery.messages
            await source.consumer.acknowledge(delivery)
    return taken


def positions(messages: list[Message]) -> list[int]:
    return [message.position for message in messages]


async def test_messages_arrive_in_order_with_their_stored_time(
    open_source: OpenSource, publish: Publish, nats_client: Client, stream: str
) -> None:
    await publish(*numbered(1, 250))
    source = await open_source(batch_size=100)
    assert await source.consumer.seek(0) == 250
    taken = await take(source, 250)
    assert [(message.position, message.payload) for message in taken] == [(n, b"%d" % n) for n in range(1, 251)]
    for message in taken[::20]:
        request = json.dumps({"seq": message.position}).encode()
        answer = await nats_client.request(f"$JS.API.STREAM.MSG.GET.{stream}", request)
        seconds, _, fraction = json.loads(answer.data)["message"]["time"].rstrip("Z").partition(".")
        ms = int(f"{fraction:0<3}"[:3])  # truncated to milliseconds
        assert message.stored_at == datetime.fromisoformat(f"{seconds}+00:00").timestamp() * 1000 + ms


async def test_fetched_message_equals_the_delivered_one(open_source: OpenSource, publish: Publish) -> None:
    await publish((SUBJECT, b""), *numbered(1, 3))
    await publish((SUBJECT, b"\0\xff"), headers={"Nats-Msg-Id": "x", "Other": "y: z"})
    source = await open_source()
    await source.consumer.seek(0)
    for message in await take(source, 5):
        assert await source.view.message(message.position) == message
    assert await source.view.message(6) is None


async def test_batch_respects_its_limit_and_counts_pending_messages(
    open_source: OpenSource, publish: Publish, eventually: Eventually
) -> None:
    await publish(*numbered(1, 45))
    source = await open_source(batch_size=20)
    await source.consumer.seek(0)
    deliveries = [await delivered(source, 60) for _ in range(2)]

    async def rest_arrived() -> bool:
        return len(source.consumer._buffer) == 5

    await eventually(rest_arrived)
    deliveries.append(await delivered(source, 0.01))
    assert [len(delivery.messages) for delivery in deliveries] == [20, 20, 5]
    assert [delivery.pending for delivery in deliveries] == [25, 5, 0]


async def test_partial_batch_waits_no_longer_than_linger(
    open_source: OpenSource, publish: Publish, eventually: Eventually
) -> None:
    source = await open_source(batch_size=3)
    await source.consumer.seek(0)
    waiting = asyncio.create_task(delivered(source, 3600))
    await publish(*numbered(1, 2))

    async def both_arrived() -> bool:
        return len(source.consumer._buffer) == 2

    await eventually(both_arrived)
    assert not waiting.done()
    await publish(*numbered(3, 3))
    async with asyncio.timeout(PATIENCE_S):
        assert positions(list((await waiting).messages)) == [1, 2, 3]
        await publish(*numbered(4, 4))
        assert positions(list((await delivered(source, 0.01)).messages)) == [4]


async def test_an_acknowledgement_moves_the_consumer_over_everything_before_it(
    open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str, eventually: Eventually
) -> None:
    await publish(*numbered(1, 45))
    source = await open_source(batch_size=20)
    await source.consumer.seek(0)
    await delivered(source, PATIENCE_S)
    await source.consumer.acknowledge(await delivered(source, 60))

    async def floor_is_at_40() -> bool:
        info = await jetstream.consumer_info(stream, CONSUMER)
        return info.ack_floor is not None and info.ack_floor.stream_seq == 40

    await eventually(floor_is_at_40)


@pytest.mark.parametrize(
    ("checkpoint", "following"), [(10, [11, 12, 13]), (30, [31, 32, 33]), (47, [48, 49, 50]), (50, [])]
)
async def test_consumer_at_another_position_is_moved_to_the_checkpoint(
    open_source: OpenSource, publish: Publish, checkpoint: int, following: list[int]
) -> None:
    await publish(*numbered(1, 50))
    first = await open_source(batch_size=15)
    await first.consumer.seek(0)
    await take(first, 30)
    await first.client.close()

    source = await open_source(batch_size=3)
    assert await source.consumer.seek(checkpoint) == 50 - checkpoint
    if following:
        assert positions(await take(source, 3)) == following
    await publish(*numbered(51, 51))
    assert positions(await take(source, 1 if not following else 51 - following[-1]))[-1] == 51


async def test_consumer_at_the_checkpoint_is_kept(
    open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str, eventually: Eventually
) -> None:
    await publish(*numbered(1, 50))
    first = await open_source()
    await first.consumer.seek(0)
    await take(first, 50)

    async def is_acknowledged() -> bool:
        return bool((await jetstream.consumer_info(stream, CONSUMER)).num_ack_pending == 0)

    await eventually(is_acknowledged)
    await first.client.close()
    before = await jetstream.consumer_info(stream, CONSUMER)
    assert await (await open_source()).consumer.seek(50) == 0
    assert (await jetstream.consumer_info(stream, CONSUMER)).created == before.created


async def test_unacknowledged_messages_before_the_checkpoint_are_not_redelivered(
    open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str
) -> None:
    await publish(*numbered(1, 50))
    first = await open_source()
    await first.consumer.seek(0)
    await delivered(first, 0.1)
    await first.client.close()
    source = await open_source()
    assert await source.consumer.seek(50) == 0
    assert (await jetstream.consumer_info(stream, CONSUMER)).num_ack_pending == 0
    await publish(*numbered(51, 51))
    assert positions(await take(source, 1)) == [51]


@pytest.mark.parametrize(
    "config",
    [
        ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, filter_subject="kaa.v1.events.epr.endpoint.>"),
        ConsumerConfig(ack_policy=AckPolicy.ALL, max_ack_pending=-1, filter_subject=FILTER, headers_only=True),
        ConsumerConfig(
            ack_policy=AckPolicy.ALL, max_ack_pending=-1, filter_subject=FILTER, replay_policy=ReplayPolicy.ORIGINAL
        ),
    ],
    ids=["other events", "headers only", "at the pace of the original"],
)
async def test_consumer_with_another_configuration_is_replaced(
    config: ConsumerConfig, open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str
) -> None:
    await publish(("kaa.v1.events.epr.endpoint.lifecycle.registered", b"1"), *numbered(2, 3))
    await jetstream.add_consumer(stream, config, durable_name=CONSUMER)
    source = await open_source()
    assert await source.consumer.seek(0) == 3
    first, *_ = messages = await take(source, 3)
    assert (positions(messages), first.payload) == ([1, 2, 3], b"1")
    assert (await jetstream.consumer_info(stream, CONSUMER)).config.replay_policy == ReplayPolicy.INSTANT


@needs_nats(2, 10)
async def test_only_messages_of_the_configured_originators_are_delivered(
    open_source: OpenSource, publish: Publish
) -> None:
    names = ["a", "b", "c", "ab", "b", "a"]
    await publish(*((subjects.build(name, "config.updated"), b"") for name in names))
    source = await open_source("a", "c")
    assert await source.view.count_after(0) == 3
    assert await source.view.count_after(1) == 2
    assert await source.consumer.seek(0) == 3
    assert positions(await take(source, 3)) == [1, 3, 6]
    await source.client.close()
    again = await open_source("a", "c")
    assert await again.consumer.seek(3) == 1
    assert positions(await take(again, 1)) == [6]


@needs_nats(2, 10)
async def test_changed_originators_change_what_an_existing_consumer_selects(
    open_source: OpenSource, publish: Publish
) -> None:
    await publish(*((subjects.build(name, "config.updated"), b"") for name in "abc"))
    await (await open_source("a")).consumer.seek(0)
    source = await open_source("b", "c")
    assert await source.consumer.seek(0) == 2
    assert positions(await take(source, 2)) == [2, 3]


async def test_oldest_message_after_a_position_is_the_first_that_matches(
    open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str
) -> None:
    for originator in ("a", "b", "c", "a"):
        await publish((subjects.build(originator, "connectivity.connected"), b""))
    await jetstream.delete_msg(stream, 2)
    everybodys, ours = await open_source(), await open_source("a", "c")
    messages = [await everybodys.view.message(position) for position in (1, 3, 4)]
    first, third, fourth = messages
    oldest = [first, third, third, fourth, None]
    assert [await everybodys.view.first_after(position) for position in range(5)] == oldest
    assert [await ours.view.first_after(position) for position in range(5)] == oldest
    assert await (await open_source("d")).view.first_after(0) is None


async def test_counting_pending_messages_leaves_no_consumer(
    open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str
) -> None:
    await publish(*numbered(1, 9))
    source = await open_source()
    assert [await source.view.count_after(position) for position in (0, 4, 9, 20)] == [9, 5, 0, 0]
    assert await jetstream.consumers_info(stream) == []


async def test_durable_consumer_counts_its_pending_messages(
    open_source: OpenSource, publish: Publish, nats_client: Client, stream: str, eventually: Eventually
) -> None:
    """The daemon's permissions allow no other consumer."""
    await publish(*numbered(1, 20))
    source = await open_source(batch_size=2)
    await source.consumer.seek(0)
    created = await nats_client.subscribe(f"$JS.API.CONSUMER.CREATE.{stream}")
    await nats_client.flush()
    assert await source.consumer.count_pending() == 20
    await take(source, 2)
    assert await source.consumer.count_pending() == 18
    for position in range(11, 21):
        await nats_client.jetstream().delete_msg(stream, position)
    assert await source.consumer.count_pending() == 8
    await take(source, 8)
    assert await source.consumer.count_pending() == 0
    await publish(*numbered(21, 21))

    async def counted() -> bool:
        return await source.consumer.count_pending() == 1

    await eventually(counted)  # NATS tells its consumers of a message after it has acknowledged the publish
    await nats_client.flush()
    assert created.pending_msgs == 0


async def test_invalid_request_is_fatal(open_source: OpenSource) -> None:
    source = await open_source()
    with pytest.raises(BrokerRefusedError, match=r"NATS refused a request.*bad request"):
        await source.view.message(0)


async def test_consumer_limit_is_transient(
    open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str
) -> None:
    config = (await jetstream.stream_info(stream)).config
    await jetstream.delete_stream(stream)
    await jetstream.add_stream(replace(config, max_consumers=1))
    await publish(*numbered(1, 9))
    await jetstream.add_consumer(stream, ConsumerConfig(durable_name="other", ack_policy=AckPolicy.EXPLICIT))
    source = await open_source()
    with pytest.raises(BrokerUnavailableError, match="maximum consumers limit"):
        await source.consumer.seek(0)
    await jetstream.delete_consumer(stream, "other")
    assert await source.consumer.seek(0) == 9


async def test_stream_state_matches_its_content(
    open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str
) -> None:
    source = await open_source()
    empty = await source.view.state()
    assert (empty.first, empty.last) == (1, 0)
    await publish(*numbered(1, 5))
    assert await source.view.state() == empty._replace(last=5)
    await jetstream.purge_stream(stream, seq=4)
    assert await source.view.state() == empty._replace(first=4, last=5)
    await jetstream.purge_stream(stream)
    assert await source.view.state() == empty._replace(first=6, last=5)


async def test_missing_stream_is_fatal_and_names_the_remedy(
    open_source: OpenSource, jetstream: JetStreamContext, stream: str
) -> None:
    source = await open_source()
    await jetstream.delete_stream(stream)
    for question in (source.view.state(), source.consumer.seek(0), source.view.count_after(0)):
        with pytest.raises(StreamMissingError, match=r"KAA_ENDPOINT_EVENTS.*projector init"):
            await question


async def test_a_consumer_that_is_deleted_interrupts_delivery_until_the_source_is_positioned_again(
    open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str
) -> None:
    source = await open_source()
    await source.consumer.seek(0)
    waiting = asyncio.create_task(delivered(source, 0))
    await jetstream.delete_consumer(stream, CONSUMER)
    with pytest.raises(DeliveryInterruptedError, match=CONSUMER):
        await waiting
    await publish(*numbered(1, 2))
    with pytest.raises(DeliveryInterruptedError, match=CONSUMER):
        await delivered(source, 0)
    assert await source.consumer.seek(0) == 2
    assert positions(await take(source, 2)) == [1, 2]


async def test_messages_taken_by_another_client_interrupt_delivery(
    open_source: OpenSource, publish: Publish, jetstream: JetStreamContext, stream: str, eventually: Eventually
) -> None:
    source = await open_source()
    await source.consumer.seek(0)
    thief = await jetstream.pull_subscribe_bind(CONSUMER, stream)
    stealing = asyncio.create_task(thief.fetch(1, timeout=PATIENCE_S))

    async def both_wait_for_messages() -> bool:
        info = await jetstream.consumer_info(stream, CONSUMER)
        return bool(info.num_waiting == 2)

    await eventually(both_wait_for_messages)
    await publish(*numbered(1, 20))
    await stealing
    with pytest.raises(DeliveryInterruptedError, match=r"sent \d+ after \d+"):
        await take(source, 20)


async def test_a_redelivery_interrupts_delivery(open_source: OpenSource, publish: Publish, nats_client: Client) -> None:
    source = await open_source(batch_size=2)
    await source.consumer.seek(0)
    await publish(*numbered(1, 2))
    delivery = await delivered(source, 60)
    await nats_client.publish(delivery.acknowledge_to, b"-NAK")
    with pytest.raises(DeliveryInterruptedError, match="delivery 2"):
        await delivered(source, 0)


async def test_source_notices_a_killed_broker_and_continues_after_its_restart(
    open_source: OpenSource, publish: Publish, nats_server: EmbeddedNats
) -> None:
    await publish(*numbered(1, 10))
    source = await open_source(batch_size=5)
    await source.consumer.seek(0)
    await take(source, 10)
    waiting = asyncio.create_task(delivered(source, 0))
    nats_server.kill()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(BrokerUnavailableError):
            await waiting
    consumer, view = source.consumer, source.view
    for question in (consumer.next(0), view.state(), view.message(1), consumer.seek(0), open_source()):
        with pytest.raises(BrokerUnavailableError):
            await question
    nats_server.start()
    source = await open_source(batch_size=5)
    assert await source.consumer.seek(8) == 2
    assert positions(await take(source, 2)) == [9, 10]


@pytest.mark.usefixtures("impatient")
async def test_missing_heartbeats_reveal_a_hanging_broker(
    open_source: OpenSource, nats_server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "_OVERDUE_S", 0.3)
    source = await open_source()
    await source.consumer.seek(0)
    nats_server.pause()
    with pytest.raises(DeliveryInterruptedError, match="nothing was heard"):
        await delivered(source, 0)
    nats_server.resume()


async def test_a_pause_of_the_process_is_not_taken_for_silence(
    open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "_IDLE_S", 0.1)
    monkeypatch.setattr(pull_module, "_OVERDUE_S", 0.3)
    source = await open_source()
    await source.consumer.seek(0)
    waiting = asyncio.create_task(source.consumer.next(0))
    await asyncio.sleep(0)
    time.sleep(1)  # noqa: ASYNC251 - the process is paused
    assert await waiting is None


async def test_connecting_to_unresponsive_servers_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_CONNECT_WITHIN_S", 0.3)
    with ExitStack() as sockets:
        urls = []
        for _ in range(3):
            deaf = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(3):  # further connections wait, as for a machine that is switched off
                waiting = sockets.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(deaf.getsockname())
            urls.append(f"nats://127.0.0.1:{deaf.getsockname()[1]}")
        async with asyncio.timeout(20):  # the client would try each server twice, for five seconds
            with pytest.raises(BrokerUnavailableError, match="not reachable"):
                await connect(Broker(urls=tuple(urls)), name="test")


async def test_pending_request_fails_when_the_connection_is_lost(
    open_source: OpenSource, nats_server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_ANSWERED_S", PATIENCE_S)  # the server may take long to end
    source = await open_source()
    nats_server.pause()
    asking = asyncio.create_task(source.view.state())
    await asyncio.sleep(0)
    nats_server.kill()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(BrokerUnavailableError, match="was lost"):
            await asking


@pytest.mark.usefixtures("impatient")
async def test_expired_pull_requests_are_renewed(
    open_source: OpenSource, publish: Publish, nats_client: Client, stream: str
) -> None:
    requests = await nats_client.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}")
    await nats_client.flush()
    source = await open_source(batch_size=5)
    await source.consumer.seek(0)
    waiting = asyncio.create_task(delivered(source, 0.05))
    for _ in range(4):
        await requests.next_msg(timeout=PATIENCE_S)
    assert not waiting.done()
    await publish(*numbered(1, 1))
    assert positions(list((await waiting).messages)) == [1]


async def test_messages_larger_than_one_request_are_delivered(
    open_source: OpenSource, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "_PULL_MAX_BYTES", 1)  # so that twice the largest message is the limit
    await publish(*((SUBJECT, b"%d" % number * 900_000) for number in range(9)))
    source = await open_source(batch_size=10)
    await source.consumer.seek(0)
    assert [(message.position, message.payload[:1]) for message in await take(source, 9)] == [
        (number + 1, b"%d" % number) for number in range(9)
    ]


async def test_large_messages_do_not_wait_for_others_to_fill_the_batch(
    open_source: OpenSource, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a batch would take as much memory as arrives in the meantime."""
    monkeypatch.setattr(pull_module, "_PULL_MAX_BYTES", 1)  # so that twice the largest message is the limit
    await publish(*((SUBJECT, b"x" * 900_000) for _ in range(20)))
    source = await open_source(batch_size=1000)
    await source.consumer.seek(0)
    async with asyncio.timeout(PATIENCE_S):
        sizes = [len((await delivered(source, 3600)).messages) for _ in range(4)]
    assert all(size <= 4 for size in sizes)  # two requests of two messages may be open


def hpub(headers: bytes) -> bytes:
    return b"HPUB %s %d %d\r\n%sx" % (SUBJECT.encode(), len(headers), len(headers) + 1, headers)


@pytest.mark.parametrize(
    "line",
    [
        b"PUB kaa.v1.events.k\xffpc.endpoint.a.b 1\r\nx",
        b"PUB kaa.v1.events.k\x0bpc.endpoint.a.b 1\r\nx",
        b"PUB kaa.v1.events.k\x00pc.endpoint.a.b 1\r\nx",
        b"PUB kaa.v1.events.%s.endpoint.a.b 1\r\nx" % (b"k" * 4000),
        hpub(b"NATS/1.0\r\nno colon\r\n\r\n"),
        hpub(b"NATS/1.0\r\nName: \xff\xfe\r\n\r\n"),
        hpub(b"NATS/1.0\r\n\xff: value\r\n\r\n"),
        hpub(b"NATS/1.0\r\n: value\r\n\r\n"),
        hpub(b"NATS/1.0\r\nName: first\r\n second\r\n\r\n"),
        hpub(b"NATS/1.0\r\n\r\n"),
        hpub(b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
        hpub(b"no headers at all"),
        hpub(b"NATS/1.0"),
        hpub(b"\x00" * 10),
        hpub(b"NATS/1.0 503\r\n\r\n"),
        hpub(b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 9\r\n\r\n"),
        hpub(b"NATS/1.0\r\nStatus: 503\r\nDescription: No Responders\r\n\r\n"),
        hpub(b"NATS/1.0\r\nStatus: 409\r\nDescription: Consumer Deleted\r\n\r\n"),
    ],
    ids=repr,
)
async def test_no_stored_message_stops_the_source(
    open_source: OpenSource, publish: Publish, raw_publish: RawPublish, line: bytes
) -> None:
    source = await open_source()
    await source.consumer.seek(0)
    await raw_publish(line)
    await publish(*numbered(2, 2))
    odd, following = await take(source, 2)
    assert (odd.position, odd.payload) == (1, b"x")
    assert (following.position, following.payload) == (2, b"2")
    fetched = await source.view.message(1)
    assert fetched is not None
    assert (fetched.stored_at, fetched.payload) == (odd.stored_at, odd.payload)


async def test_subject_bytes_that_are_not_utf_8_are_preserved(open_source: OpenSource, raw_publish: RawPublish) -> None:
    source = await open_source()
    await source.consumer.seek(0)
    await raw_publish(b"PUB kaa.v1.events.k\xffpc.endpoint.a.b 1\r\nx")
    (odd,) = await take(source, 1)
    assert odd.subject.encode("utf-8", "surrogateescape") == b"kaa.v1.events.k\xffpc.endpoint.a.b"


async def test_a_message_keeps_its_headers(open_source: OpenSource, publish: Publish) -> None:
    source = await open_source()
    await source.consumer.seek(0)
    await publish((SUBJECT, b"x"), headers={"Nats-Msg-Id": "7", "Status": "503", "Trace": "a: b"})
    (message,) = await take(source, 1)
    assert message.headers == {"Nats-Msg-Id": "7", "Status": "503", "Trace": "a: b"}
