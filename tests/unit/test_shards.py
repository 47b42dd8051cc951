"""The shards of a projection divide everything, and a share of a stream is decoded without the rest."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector import resources
from projector.app.decoding import Decoded, decode
from projector.domain.messages import Message
from projector.domain.shards import WHOLE, Frontier, Shard, Share, shard_of
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.support.fixtures import Event, Wire

MALFORMED: Wire = (subjects.build("kpc", "connectivity.connected"), b"\xff")
UNKNOWN: Wire = (subjects.build("kpc", "config.future"), b"")
NAMES = [f"e{number}" for number in range(20)]


@given(st.text(), st.integers(1, 300), st.integers(1, 2**63 - 1))
def test_every_endpoint_and_every_message_belongs_to_one_shard(endpoint_id: str, shards: int, position: int) -> None:
    every = [Shard(number, shards) for number in range(shards)]
    owners = [shard.number for shard in every if shard.has_endpoint(endpoint_id.encode(), position)]
    assert owners == [shard_of(endpoint_id, shards)] == [crc32(endpoint_id.encode()) % shards]
    assert [shard.number for shard in every if shard.has_message(position)] == [position % shards]


def test_one_shard_has_everything() -> None:
    assert all(WHOLE.has_endpoint(name.encode(), 1) for name in NAMES)
    assert all(map(WHOLE.has_message, range(1, 100)))


def test_a_frontier_ends_for_each_shard_where_the_shard_is() -> None:
    frontier = Frontier((5, 9))
    for name in NAMES:
        assert frontier.has_endpoint(name.encode(), 5)
        assert frontier.has_endpoint(name.encode(), 9) is (shard_of(name, 2) == 1)
        assert not frontier.has_endpoint(name.encode(), 10)
    assert [position for position in range(1, 12) if frontier.has_message(position)] == [1, 2, 3, 4, 5, 7, 9]


def stream(event: Event) -> list[Message]:
    wires = [event("connectivity.connected", name) for name in NAMES]
    wires.append(event("connectivity.disconnected", endpointIds=NAMES))
    wires += [MALFORMED] * 7 + [UNKNOWN] * 7
    return [Message(position, 1000, *wire) for position, wire in enumerate(wires, 1)]


def facts(decoded: Decoded) -> set[tuple[object, ...]]:
    """Return what was decoded, by endpoint."""
    named = {(event.stamp.position, type(event), name) for event in decoded.events for name in event.endpoint_ids}
    return named | {(letter.message.position, letter.reason) for letter in decoded.dead_letters}


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
async def test_the_shards_decode_together_what_one_shard_decodes(codec: Codec, event: Event, shards: int) -> None:
    messages = stream(event)
    whole = await decode(codec, messages, None)
    parts = [await decode(codec, messages, Shard(number, shards)) for number in range(shards)]
    found = [facts(part) for part in parts]
    assert set.union(*found) == facts(whole)
    assert sum(map(len, found)) == len(facts(whole))
    assert sum(part.skipped.total() for part in parts) == whole.skipped.total() == 7


class Counting(Codec):
    """Counts the messages that it decodes."""

    decoded = 0

    def decode(self, message: Message):  # type: ignore[no-untyped-def] # noqa: ANN201 - as its base class
        self.decoded += 1
        return super().decode(message)


async def test_most_messages_of_other_shards_are_not_decoded(event: Event) -> None:
    codec = Counting("kaa-2017-04", resources.folder("schemas"))
    messages = [Message(position, 1000, *event("connectivity.connected", NAMES[0])) for position in range(1, 101)]
    other: Share = Shard(1 - shard_of(NAMES[0], 2), 2)
    assert (await decode(codec, messages, other)).events == []
    assert codec.decoded == 50, "half of the positions are those of the shard"
