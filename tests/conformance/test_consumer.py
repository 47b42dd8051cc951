"""The port Consumer."""

import pytest

from projector.app.ports import Consumer
from projector.domain.messages import Delivery
from projector.errors import DeliveryInterruptedError
from projector.stream import subjects
from tests.conformance.streams import StreamUnderTest
from tests.support.fixtures import Eventually, Wire
from tests.support.patience import PATIENCE_S

WANTED = subjects.build("kpc", "connectivity.connected")
OTHER = subjects.build("epr", "connectivity.connected")


def numbered(first: int, last: int) -> list[Wire]:
    return [(WANTED, b"%d" % number) for number in range(first, last + 1)]


async def delivered(consumer: Consumer, *, linger_s: float = 0.05) -> Delivery:
    """Return the next delivery; with a long linger, a full one."""
    while (delivery := await consumer.next(linger_s)) is None:
        pass
    return delivery


def positions(*deliveries: Delivery) -> list[int]:
    return [message.position for delivery in deliveries for message in delivery.messages]


async def take(consumer: Consumer, count: int, *, linger_s: float = 0.05) -> list[int]:
    """Return the positions of the next messages."""
    taken: list[int] = []
    while len(taken) < count:
        taken += positions(await delivered(consumer, linger_s=linger_s))
    return taken


async def test_messages_are_delivered_once_in_order_with_their_pending_count(stream: StreamUnderTest) -> None:
    await stream.publish(*numbered(1, 25))
    async with stream.open(batch_size=10) as source:
        assert await source.consumer.seek(0) == 25
        deliveries = [await delivered(source.consumer, linger_s=PATIENCE_S) for _ in range(2)]
        assert [(len(delivery.messages), delivery.pending) for delivery in deliveries] == [(10, 15), (10, 5)]
        while deliveries[-1].pending:
            deliveries.append(await delivered(source.consumer))
        assert positions(*deliveries) == list(range(1, 26))
        times = [message.stored_at for delivery in deliveries for message in delivery.messages]
        assert times == sorted(times)


@pytest.mark.parametrize(("after", "following"), [(0, [1, 2, 3]), (2, [3]), (3, [])])
async def test_seek_counts_pending_messages_and_continues_after_a_position(
    stream: StreamUnderTest, after: int, following: list[int]
) -> None:
    await stream.publish(*numbered(1, 3))
    async with stream.open() as source:
        assert await source.consumer.seek(after) == len(following)
        await stream.publish(*numbered(4, 4))
        assert await take(source.consumer, len(following) + 1) == [*following, 4]


async def test_second_seek_continues_after_its_position(stream: StreamUnderTest) -> None:
    await stream.publish(*numbered(1, 6))
    async with stream.open(batch_size=3) as source:
        await source.consumer.seek(0)
        assert await take(source.consumer, 3, linger_s=PATIENCE_S) == [1, 2, 3]
        assert await source.consumer.seek(1) == 5
        assert await take(source.consumer, 5) == [2, 3, 4, 5, 6]
        assert await source.consumer.seek(5) == 1
        assert await take(source.consumer, 1) == [6]


async def test_messages_of_other_originators_are_neither_counted_nor_delivered(stream: StreamUnderTest) -> None:
    await stream.publish((OTHER, b""), *numbered(2, 3), (OTHER, b""), (OTHER, b""), *numbered(6, 6), (OTHER, b""))
    async with stream.open() as source:
        assert await source.consumer.seek(0) == 3
        assert await take(source.consumer, 3) == [2, 3, 6]
        assert await source.consumer.count_pending() == 0
        assert (await source.view.state()).last == 7


async def test_removed_messages_are_neither_counted_nor_delivered(stream: StreamUnderTest) -> None:
    await stream.publish(*numbered(1, 9))
    await stream.trim(4)
    await stream.delete(6, 9)
    async with stream.open() as source:
        assert await source.consumer.seek(0) == 4
        assert await take(source.consumer, 4) == [4, 5, 7, 8]


async def test_messages_removed_before_delivery_are_no_longer_counted(
    stream: StreamUnderTest,
) -> None:
    await stream.publish(*numbered(1, 20))
    async with stream.open(batch_size=2) as source:
        await source.consumer.seek(0)
        assert await source.consumer.count_pending() == 20
        assert await take(source.consumer, 2, linger_s=PATIENCE_S) == [1, 2]
        assert await source.consumer.count_pending() == 18
        await stream.delete(*range(11, 21))
        assert await source.consumer.count_pending() == 8
        assert await take(source.consumer, 8) == list(range(3, 11))
        assert await source.consumer.count_pending() == 0


async def test_consumer_is_idle_at_the_end_of_the_stream_and_delivers_later_messages(
    stream: StreamUnderTest, eventually: Eventually
) -> None:
    async with stream.open() as source:
        consumer = source.consumer
        assert await consumer.seek(0) == 0
        assert await consumer.next(0) is None
        await stream.publish(*numbered(1, 1))

        async def counted() -> bool:
            return await consumer.count_pending() == 1

        await eventually(counted)  # NATS tells its consumers of a message after it has acknowledged the publish
        assert await take(source.consumer, 1) == [1]
        assert await source.consumer.next(0) is None


async def test_consumer_is_idle_when_pending_messages_are_removed(stream: StreamUnderTest) -> None:
    await stream.publish(*numbered(1, 20))
    async with stream.open(batch_size=2) as source:
        await source.consumer.seek(0)
        await take(source.consumer, 2)
        await stream.trim(21)
        while await source.consumer.next(0) is not None:
            pass  # up to two batches were already in flight
        assert await source.consumer.count_pending() == 0


async def test_interrupted_consumer_must_seek_before_it_continues(stream: StreamUnderTest) -> None:
    async with stream.open() as source:
        await source.consumer.seek(0)
        assert await source.consumer.next(0) is None
        await stream.interrupt()
        with pytest.raises(DeliveryInterruptedError):
            await delivered(source.consumer)
        await stream.publish(*numbered(1, 2))
        with pytest.raises(DeliveryInterruptedError):
            await source.consumer.next(0)
        assert await source.consumer.seek(0) == 2
        assert await take(source.consumer, 2) == [1, 2]


async def test_abandoned_consumer_is_replaced_by_seeking(stream: StreamUnderTest) -> None:
    await stream.publish(*numbered(1, 5))
    async with stream.open(batch_size=3) as source:
        await source.consumer.seek(0)
        await take(source.consumer, 3)
        await source.consumer.discard()
        await source.consumer.discard()
        assert await source.consumer.seek(1) == 4
        assert await take(source.consumer, 4) == [2, 3, 4, 5]


async def test_a_stream_that_is_recreated_interrupts_delivery(stream: StreamUnderTest) -> None:
    await stream.publish(*numbered(1, 3))
    async with stream.open() as source:
        await source.consumer.seek(0)
        await take(source.consumer, 3)
        await stream.recreate()
        await stream.publish(*numbered(1, 2))
        with pytest.raises(DeliveryInterruptedError):
            await delivered(source.consumer)


@pytest.mark.parametrize(
    "implementation", ["memory", pytest.param("durable", marks=pytest.mark.servers)], indirect=True
)
async def test_an_acknowledgement_covers_everything_before_it(stream: StreamUnderTest, eventually: Eventually) -> None:
    await stream.publish(*numbered(1, 25))
    async with stream.open(batch_size=10) as source:
        await source.consumer.seek(0)
        _, second = [await delivered(source.consumer, linger_s=PATIENCE_S) for _ in range(2)]
        await source.consumer.acknowledge(second._replace(acknowledge_to=""))
        assert await stream.acknowledged() == 0
        await source.consumer.acknowledge(second)

        async def arrived() -> bool:
            return await stream.acknowledged() == 20

        await eventually(arrived)
