"""The port StreamView."""

import pytest

from projector.domain.messages import StreamState
from projector.errors import BrokerRefusedError, BrokerUnavailableError, StreamMissingError
from projector.stream import subjects
from tests.conformance.streams import StreamUnderTest
from tests.support.fixtures import Wire

SUBJECT = subjects.build("kpc", "connectivity.connected")


def numbered(first: int, last: int) -> list[Wire]:
    return [(SUBJECT, b"%d" % number) for number in range(first, last + 1)]


async def bounds(stream: StreamUnderTest) -> tuple[int, int]:
    state = await state_of(stream)
    return state.first, state.last


async def state_of(stream: StreamUnderTest) -> StreamState:
    async with stream.open() as source:
        return await source.view.state()


async def test_state_has_the_first_and_last_position(stream: StreamUnderTest) -> None:
    assert await bounds(stream) == (1, 0)
    await stream.publish(*numbered(1, 6))
    assert await bounds(stream) == (1, 6)
    await stream.trim(3)
    assert await bounds(stream) == (3, 6)
    await stream.delete(3, 5)
    assert await bounds(stream) == (4, 6)
    await stream.delete(6)
    assert await bounds(stream) == (4, 6)
    await stream.trim(7)
    assert await bounds(stream) == (7, 6)
    await stream.publish(*numbered(7, 7))
    assert await bounds(stream) == (7, 7)


async def test_deleted_positions_are_those_after_the_first_message(stream: StreamUnderTest) -> None:
    await stream.publish(*numbered(1, 6))
    await stream.trim(3)
    await stream.delete(3, 5)
    async with stream.open() as source:
        state = await source.view.state()
        assert (state.began, state.first, state.last, state.deleted) == (1, 4, 6, 1)
        assert await source.view.deleted() == {5}
        await stream.delete(6)
        assert (await source.view.state()).deleted == 2
        assert await source.view.deleted() == {5, 6}
        await stream.delete(4)
        assert (await source.view.state()).deleted == 0
        assert await source.view.deleted() == frozenset()


async def test_recreated_stream_restarts_with_another_creation_time(stream: StreamUnderTest) -> None:
    await stream.publish(*numbered(1, 3))
    before = await state_of(stream)
    await stream.recreate()
    after = await state_of(stream)
    assert (after.first, after.last) == (1, 0)
    assert after.created_at > before.created_at


async def test_message_is_returned_until_it_leaves_the_stream(stream: StreamUnderTest) -> None:
    await stream.publish((SUBJECT, b"\0\xff"), headers={"Nats-Msg-Id": "x"})
    await stream.publish(*numbered(2, 3))
    async with stream.open() as source:
        message = await source.view.message(1)
        assert message is not None
        assert message[2:] == (SUBJECT, b"\0\xff", {"Nats-Msg-Id": "x"})
        await source.consumer.seek(0)
        while (delivery := await source.consumer.next(0)) is None:
            pass  # it is still on its way
        assert delivery.messages[0] == message
        await stream.trim(2)
        assert await source.view.message(1) is None
        assert await source.view.message(4) is None


async def test_message_at_position_0_is_refused(stream: StreamUnderTest) -> None:
    async with stream.open() as source:
        with pytest.raises(BrokerRefusedError):
            await source.view.message(0)


async def test_a_stream_that_does_not_exist_is_missing(stream: StreamUnderTest) -> None:
    await stream.remove()
    async with stream.open() as source:
        with pytest.raises(StreamMissingError):
            await source.view.state()
        with pytest.raises(StreamMissingError):
            await source.consumer.seek(0)


async def test_a_lost_connection_makes_the_broker_unavailable(stream: StreamUnderTest) -> None:
    await stream.publish(*numbered(1, 3))
    async with stream.open() as source:
        await source.consumer.seek(3)
        await stream.lose_connections()
        view = source.view
        for question in (
            view.state(),
            view.deleted(),
            view.message(1),
            view.first_after(0),
            source.consumer.next(0),
        ):
            with pytest.raises(BrokerUnavailableError):
                await question


async def test_the_first_message_after_a_position_is_one_that_matches(stream: StreamUnderTest) -> None:
    foreign = (subjects.build("other", "connectivity.connected"), b"")
    await stream.publish(*numbered(1, 2), foreign, *numbered(4, 4))
    await stream.delete(2)
    async with stream.open() as source:
        found = [await source.view.first_after(position) for position in range(5)]
    assert [message and message.position for message in found] == [1, 4, 4, 4, None]
