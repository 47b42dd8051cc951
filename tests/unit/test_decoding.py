"""The messages of a batch are decoded as far as the share of a shard needs it."""

import pytest

from projector import resources
from projector.app.decoding import Decoded, decode
from projector.domain.messages import Message
from projector.domain.shards import Shard, Share, shard_of
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.support.fixtures import Event, Wire

MALFORMED: Wire = (subjects.build("kpc", "connectivity.connected"), b"\xff")
UNKNOWN: Wire = (subjects.build("kpc", "config.future"), b"")
NAMES = [f"e{number}" for number in range(20)]


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
