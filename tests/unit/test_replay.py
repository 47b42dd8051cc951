from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from projector.app.replay import Replay
from projector.errors import DeliveryInterruptedError
from projector.stream import subjects
from tests.support.fixtures import Wire
from tests.support.memory.stream import MemoryStream

WANTED: Wire = (subjects.build("kpc", "config.updated"), b"")
OTHER: Wire = (subjects.build("epr", "config.updated"), b"")

Open = Callable[..., Awaitable[Replay]]


@pytest.fixture
def stream() -> MemoryStream:
    return MemoryStream(originators=("kpc",))


@pytest.fixture
async def begin(stream: MemoryStream) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def begin(after: int = 0, *, batch_size: int = 3) -> Replay:
            replay = Replay(await stack.enter_async_context(stream.open(batch_size=batch_size)))
            await replay.begin(after)
            return replay

        yield begin


async def through(replay: Replay, position: int) -> list[list[int]]:
    return [[message.position for message in batch] async for batch in replay.batches_through(position)]


async def test_each_message_is_replayed_once_for_any_positions(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 10)
    replay = await begin()
    assert await through(replay, 0) == []
    assert await through(replay, 2) == [[1, 2]]
    assert await through(replay, 2) == []
    assert await through(replay, 7) == [[3], [4, 5, 6], [7]]
    assert await through(replay, 5) == []
    assert await through(replay, 10) == [[8, 9], [10]]
    await stream.publish(WANTED)
    assert await through(replay, 11) == [[11]]


async def test_a_replay_begins_after_a_position(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 5)
    assert await through(await begin(3), 5) == [[4, 5]]


async def test_an_empty_stream_is_replayed_at_once(begin: Open) -> None:
    assert await through(await begin(), 0) == []


async def test_replay_does_not_wait_for_foreign_messages(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(OTHER, WANTED, OTHER, WANTED, OTHER, OTHER)
    replay = await begin()
    assert await through(replay, 6) == [[2, 4]]
    assert await through(replay, 6) == []


async def test_a_gap_before_the_first_message_is_no_loss(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 5)
    await stream.trim(3)
    assert await through(await begin(), 5) == [[3, 4, 5]]


async def test_prefetched_message_that_leaves_the_stream_is_no_loss(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 5)
    replay = await begin(batch_size=5)
    await stream.trim(6)
    assert await through(replay, 5) == [[1, 2, 3, 4, 5]]


async def test_begin_prefetches_the_first_messages(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 5)
    replay = await begin()
    await stream.lose_connections()
    assert await through(replay, 3) == [[1, 2, 3]]


async def test_returned_messages_are_replayed_again(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 5)
    replay = await begin()
    first = [message async for batch in replay.batches_through(2) for message in batch]
    replay.put_back(first)
    assert await through(replay, 5) == [[1, 2, 3], [4, 5]]
    replay.put_back([])
    assert await through(replay, 5) == []


async def test_message_that_leaves_the_stream_unread_ends_the_replay(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 9)
    replay = await begin()
    assert await through(replay, 2) == [[1, 2]]
    await stream.trim(8)
    with pytest.raises(DeliveryInterruptedError, match="after position 3 "):
        await through(replay, 9)


async def test_a_stream_that_is_emptied_ends_the_replay(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 9)
    replay = await begin()
    await stream.trim(10)
    with pytest.raises(DeliveryInterruptedError, match="after position 3 "):
        await through(replay, 9)


async def test_messages_stored_and_removed_after_the_last_known_one_end_the_replay(
    stream: MemoryStream, begin: Open
) -> None:
    await stream.publish(*[WANTED] * 3)
    replay = await begin()
    assert await through(replay, 3) == [[1, 2, 3]]
    await stream.publish(*[WANTED] * 3)
    await stream.trim(7)
    with pytest.raises(DeliveryInterruptedError, match="after position 3 "):
        await through(replay, 6)


async def test_daemon_does_not_wait_for_deleted_messages(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 9)
    replay = await begin()
    await stream.delete(4, 7, 8, 9)
    assert await through(replay, 9) == [[1, 2, 3], [5, 6]]


async def test_second_begin_discards_prefetched_messages(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 5)
    replay = await begin()
    await replay.begin(1)
    assert await through(replay, 5) == [[2, 3, 4], [5]]


async def test_an_interruption_ends_the_replay(stream: MemoryStream, begin: Open) -> None:
    await stream.publish(*[WANTED] * 5)
    replay = await begin()
    await stream.interrupt()
    with pytest.raises(DeliveryInterruptedError):
        await through(replay, 5)
