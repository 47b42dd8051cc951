from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeAlias

import pytest

from projector.app.ports import Source
from projector.app.reader import Gap, Idle, Reader, Reading
from projector.domain.messages import Delivery
from projector.errors import BrokerUnavailableError, DeliveryInterruptedError
from projector.stream import subjects
from tests.support.fixtures import Wire
from tests.support.memory.stream import MemoryStream

WANTED: Wire = (subjects.build("kpc", "config.updated"), b"")
OTHER: Wire = (subjects.build("epr", "config.updated"), b"")

Open: TypeAlias = Callable[..., Awaitable[Reader]]
Read: TypeAlias = Gap | Idle | list[int]


@pytest.fixture
def stream() -> MemoryStream:
    return MemoryStream(originators=("kpc",))


@pytest.fixture
async def open_reader(stream: MemoryStream) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_reader(batch_size: int = 100) -> Reader:
            source: Source = await stack.enter_async_context(stream.open(batch_size=batch_size))
            return Reader(source, linger_s=0)

        yield open_reader


def shown(reading: Reading) -> Read:
    return [message.position for message in reading.messages] if isinstance(reading, Delivery) else reading


async def read(reader: Reader, times: int) -> list[Read]:
    return [shown(await reader.next()) for _ in range(times)]


async def test_messages_are_read_in_order_with_what_follows_them(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 5)
    reader = await open_reader(batch_size=2)
    assert await reader.seek(0) is None
    assert (reader.position, reader.pending) == (0, 5)
    seen = [(shown(await reader.next()), reader.position, reader.pending) for _ in range(3)]
    assert seen == [([1, 2], 2, 3), ([3, 4], 4, 1), ([5], 5, 0)]


@pytest.mark.parametrize(
    ("first", "after", "gap"),
    [(1, 0, None), (4, 3, None), (4, 5, None), (4, 0, Gap(0, 4)), (4, 2, Gap(2, 4)), (7, 2, Gap(2, 7)), (7, 6, None)],
)
async def test_seek_returns_an_existing_gap(
    stream: MemoryStream, open_reader: Open, first: int, after: int, gap: Gap | None
) -> None:
    await stream.publish(*[WANTED] * 6)
    await stream.trim(first)
    reader = await open_reader()
    assert await reader.seek(after) == gap
    assert reader.position == max(after, first - 1)
    expected = list(range(reader.position + 1, 7)) or Idle(0)
    assert await read(reader, 1) == [expected]


async def test_gap_before_the_first_delivery_is_reported(stream: MemoryStream, open_reader: Open) -> None:
    reader = await open_reader()
    assert await reader.seek(0) is None
    await stream.publish(*[WANTED] * 4)
    await stream.trim(3)
    assert await read(reader, 1) == [Gap(0, 3)]
    assert reader.position == 2
    assert await read(reader, 2) == [[3, 4], Idle(0)]


async def test_gap_between_two_deliveries_is_reported(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 6)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    assert await read(reader, 1) == [[1, 2]]
    await stream.trim(5)
    assert await read(reader, 3) == [Gap(2, 5), [5, 6], Idle(0)]


async def test_a_gap_inside_a_delivery_splits_it_and_only_the_last_part_is_acknowledged(
    stream: MemoryStream, open_reader: Open
) -> None:
    await stream.publish(*[WANTED] * 2)
    reader = await open_reader()
    await reader.seek(0)  # these two are in flight from now on
    await stream.publish(*[WANTED] * 4)
    await stream.trim(5)
    before = await reader.next()
    assert isinstance(before, Delivery)
    assert (shown(before), before.pending, before.acknowledge_to) == ([1, 2], 2, "")
    assert shown(await reader.next()) == Gap(2, 5)
    behind = await reader.next()
    assert isinstance(behind, Delivery)
    assert (shown(behind), behind.pending, behind.acknowledge_to) == ([5, 6], 0, "6")


async def test_foreign_and_deleted_messages_leave_holes_but_no_gaps(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(WANTED, OTHER, WANTED, OTHER, OTHER, WANTED, WANTED, WANTED)
    await stream.delete(7)
    reader = await open_reader()
    assert await reader.seek(0) is None
    assert await read(reader, 2) == [[1, 3, 6, 8], Idle(0)]


@pytest.mark.parametrize(
    ("first", "readings"),
    [(2, [[1, 4]]), (3, [[1], Gap(1, 4), [4]]), (4, [[1], Gap(1, 4), [4]])],
    ids=["behind the beginning", "partly before it", "before it"],
)
async def test_hole_with_unknown_content_counts_as_a_gap(
    stream: MemoryStream, open_reader: Open, first: int, readings: list[Read]
) -> None:
    await stream.publish(WANTED)
    reader = await open_reader()
    await reader.seek(0)
    await stream.publish(OTHER, OTHER, WANTED)
    await stream.trim(first)
    assert await read(reader, len(readings)) == readings


@pytest.mark.parametrize("count", [3, 6])
async def test_stream_emptied_during_a_wait_is_a_gap(stream: MemoryStream, open_reader: Open, count: int) -> None:
    await stream.publish(*[WANTED] * count)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    assert await read(reader, 1) == [[1, 2]]
    await stream.trim(count + 1)
    # The first answer may predate the purge: one more wait makes sure.
    assert await read(reader, 3) == [Idle(count - 2), Gap(2, count + 1), Idle(0)]
    assert (reader.position, reader.pending) == (count, 0)
    await stream.publish(WANTED)
    assert await read(reader, 1) == [[count + 1]]


async def test_message_after_the_stream_was_emptied_follows_the_gap(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 6)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    assert await read(reader, 1) == [[1, 2]]
    await stream.trim(7)
    assert await read(reader, 1) == [Idle(4)]
    await stream.publish(WANTED)
    assert await read(reader, 3) == [Gap(2, 7), [7], Idle(0)]


async def test_single_deletions_are_recounted_and_are_no_gap(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 6)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    assert await read(reader, 1) == [[1, 2]]
    await stream.delete(3, 4, 5, 6)
    assert await read(reader, 2) == [Idle(0), Idle(0)]


async def test_retention_before_the_readers_position_is_no_gap(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 3)
    reader = await open_reader()
    await reader.seek(0)
    assert await read(reader, 1) == [[1, 2, 3]]
    await stream.trim(4)
    assert await read(reader, 1) == [Idle(0)]
    await stream.publish(WANTED)
    assert await read(reader, 1) == [[4]]


async def test_recount_queries_the_pending_messages(stream: MemoryStream, open_reader: Open) -> None:
    reader = await open_reader()
    await reader.seek(0)
    await stream.publish(*[WANTED] * 3, OTHER)
    assert reader.pending == 0
    assert await reader.recount() == reader.pending == 3


async def test_deliveries_are_joined_up_to_a_number_of_messages(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 9)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    joined = await reader.next(joined=5)
    assert isinstance(joined, Delivery)
    assert (shown(joined), joined.pending, joined.acknowledge_to) == ([1, 2, 3, 4], 5, "4")
    assert (reader.position, reader.pending) == (4, 5)
    assert [shown(await reader.next(joined=joined)) for joined in (0, 1, 2)] == [[5, 6], [7, 8], [9]]


async def test_joined_deliveries_end_with_the_stream(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 5)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    assert shown(await reader.next(joined=100)) == [1, 2, 3, 4, 5]
    assert (reader.position, reader.pending) == (5, 0)
    assert await read(reader, 1) == [Idle(0)]


async def test_joined_deliveries_hold_a_limited_number_of_bytes(stream: MemoryStream, open_reader: Open) -> None:
    subject, _ = WANTED
    large = (subject, b"x" * (1024 * 1024 + 1))
    await stream.publish(*[large] * 5)
    await stream.publish(*[WANTED] * 2, headers={"a": "x" * 1024 * 1024})
    await stream.publish(*[large] * 11)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    readings = [shown(await reader.next(joined=100)) for _ in range(3)]
    assert readings == [[*range(1, 7)], [*range(7, 13)], [*range(13, 19)]]


async def test_a_delivery_above_the_limits_comes_alone(stream: MemoryStream, open_reader: Open) -> None:
    subject, _ = WANTED
    await stream.publish(*[(subject, b"x" * 5 * 1024 * 1024)] * 4)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    assert [shown(await reader.next(joined=100)) for _ in range(2)] == [[1, 2], [3, 4]]


async def test_a_gap_ends_joined_deliveries(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 2)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)  # these two are in flight from now on
    await stream.publish(*[WANTED] * 6)
    await stream.trim(5)
    readings = [await reader.next(joined=100) for _ in range(3)]
    assert [shown(reading) for reading in readings] == [[1, 2], Gap(2, 5), [5, 6, 7, 8]]


async def test_joined_deliveries_end_where_messages_were_deleted_and_nothing_follows(
    stream: MemoryStream, open_reader: Open
) -> None:
    await stream.publish(*[WANTED] * 6)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    assert await read(reader, 1) == [[1, 2]]
    await stream.publish(*[WANTED] * 2)
    await stream.delete(5, 6, 7, 8)
    assert shown(await reader.next(joined=100)) == [3, 4]
    assert await read(reader, 1) == [Idle(0)]


async def test_an_interruption_while_deliveries_are_joined_is_raised(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 4)
    reader = await open_reader(batch_size=2)
    await reader.seek(0)
    await stream.interrupt()
    with pytest.raises(DeliveryInterruptedError):
        await reader.next(joined=100)


async def test_second_seek_discards_prefetched_messages(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(*[WANTED] * 2)
    reader = await open_reader()
    await reader.seek(0)
    await stream.publish(*[WANTED] * 4)
    await stream.trim(5)
    assert await read(reader, 1) == [[1, 2]]
    assert await reader.seek(4) is None
    assert await read(reader, 2) == [[5, 6], Idle(0)]


async def test_interruption_and_lost_connection_are_raised_by_the_reader(
    stream: MemoryStream, open_reader: Open
) -> None:
    reader = await open_reader()
    await reader.seek(0)
    await stream.interrupt()
    with pytest.raises(DeliveryInterruptedError):
        await reader.next()
    await reader.seek(0)
    assert await read(reader, 1) == [Idle(0)]
    await stream.lose_connections()
    with pytest.raises(BrokerUnavailableError):
        await reader.next()


async def test_the_end_is_that_of_the_stream_and_not_of_a_consumer_that_is_behind(
    stream: MemoryStream, open_reader: Open
) -> None:
    await stream.publish(WANTED, WANTED, WANTED, OTHER)
    stream.replicated = 2
    reader = await open_reader(batch_size=1)
    await reader.seek(0)
    seen = []
    for _ in range(2):
        seen.append((await reader.is_at_end(), reader.pending))
        await reader.next()
    seen.append((await reader.is_at_end(), reader.pending))
    stream.replicated = 9
    await reader.next()
    assert [*seen, (await reader.is_at_end(), reader.position)] == [(False, 2), (False, 1), (False, 0), (True, 3)]


async def test_what_is_published_at_the_end_does_not_move_it(stream: MemoryStream, open_reader: Open) -> None:
    await stream.publish(OTHER, WANTED)
    reader = await open_reader()
    await reader.seek(2)
    assert await reader.is_at_end()
    await stream.publish(OTHER, WANTED, OTHER)
    assert (reader.pending, await reader.is_at_end()) == (0, True)


async def test_an_empty_stream_is_at_its_end(open_reader: Open) -> None:
    reader = await open_reader()
    await reader.seek(0)
    assert await reader.is_at_end()
