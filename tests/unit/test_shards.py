"""The shards of a projection divide everything."""

from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from projector.domain.shards import PUBLISHER, WHOLE, Frontier, Shard, shard_of

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


def test_a_projection_that_is_not_divided_publishes_its_changes() -> None:
    assert WHOLE.number == PUBLISHER


def test_a_frontier_ends_for_each_shard_where_the_shard_is() -> None:
    frontier = Frontier((5, 9))
    for name in NAMES:
        assert frontier.has_endpoint(name.encode(), 5)
        assert frontier.has_endpoint(name.encode(), 9) is (shard_of(name, 2) == 1)
        assert not frontier.has_endpoint(name.encode(), 10)
    assert [position for position in range(1, 12) if frontier.has_message(position)] == [1, 2, 3, 4, 5, 7, 9]
