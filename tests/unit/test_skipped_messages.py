"""A server whose consumers skip messages that the stream still holds (nats-server issue 8571)."""

import pytest

from projector.app.ports import Source
from projector.app.reader import Idle, Reader
from projector.domain.messages import Delivery
from projector.errors import MessagesSkippedError
from projector.stream import subjects
from tests.support.fixtures import Wire
from tests.support.memory.stream import MemoryStream

OURS = subjects.build("kpc", "connectivity.connected")
FOREIGN = "kaa.v1.events.kpc.something.else"


def wires(count: int, subject: str = OURS) -> list[Wire]:
    return [(subject, b"")] * count


async def begin(source: Source, after: int = 0) -> Reader:
    reader = Reader(source, linger_s=0)
    assert await reader.seek(after) is None
    return reader


async def positions(reader: Reader) -> list[int]:
    reading = await reader.next()
    assert isinstance(reading, Delivery)
    return [message.position for message in reading.messages]


async def skipped(reader: Reader) -> int:
    """Read until a skipped message is noticed, and return its position."""
    for _ in range(4):
        try:
            await reader.next()
        except MessagesSkippedError as error:
            return error.position
    pytest.fail("nothing was noticed")


async def test_consumer_that_skips_the_next_message_is_noticed_at_the_following_delivery() -> None:
    stream = MemoryStream()
    async with stream.open(batch_size=2) as source:
        reader = await begin(source)
        await stream.publish(*wires(6))
        assert await positions(reader) == [1, 2]
        await stream.delete(5)
        stream.jump = 5
        assert await skipped(reader) == 3
        assert stream.discarded == 1


async def test_consumer_that_jumps_to_the_end_is_noticed_when_nothing_more_comes() -> None:
    stream = MemoryStream()
    async with stream.open() as source:
        reader = await begin(source)
        await stream.publish(*wires(3))
        stream.jump = 3
        assert await skipped(reader) == 1


async def test_consumer_positioned_after_skipped_messages_is_noticed_at_the_start() -> None:
    stream = MemoryStream()
    await stream.publish(*wires(4))
    async with stream.open() as source:
        reader = Reader(source, linger_s=0)
        await reader.seek(0)
        source.consumer._buffer.clear()  # type: ignore[attr-defined] # as a consumer whose cursor has moved
        await stream.publish(*wires(1))
        assert await skipped(reader) == 1


async def test_reader_does_not_wait_for_deleted_messages() -> None:
    stream = MemoryStream()
    async with stream.open(batch_size=2) as source:
        reader = await begin(source)
        await stream.publish(*wires(6))
        assert await positions(reader) == [1, 2]
        await stream.delete(3, 4)
        assert await positions(reader) == [5, 6]
        assert await reader.next() == Idle(0)
        assert await reader.next() == Idle(0)


async def test_holes_of_other_subjects_are_no_skipped_messages() -> None:
    stream = MemoryStream()
    async with stream.open(batch_size=2) as source:
        reader = await begin(source)
        for _ in range(3):
            await stream.publish(*wires(1), *wires(2, FOREIGN))
        await stream.delete(2)
        assert await positions(reader) == [1, 4]
        assert await positions(reader) == [7]
        assert await reader.next() == Idle(0)
