"""Shards: the endpoints of a projection, divided so that several processes can fold them.

Every shard reads the whole stream and folds its own endpoints, so the order of the events of an endpoint is kept.
What concerns a message as a whole, such as that it is skipped or cannot be decoded, belongs to one shard too:
so each message counts once.
"""

from typing import NamedTuple, Protocol
from zlib import crc32


class Share(Protocol):
    """What one projection folds of a stream."""

    def has_endpoint(self, endpoint_id: bytes, position: int) -> bool:
        """Return whether it folds what the message at a position says of an endpoint, given its id in UTF-8."""
        ...

    def has_message(self, position: int) -> bool:
        """Return whether it parks the message at a position if that cannot be decoded, or counts it as skipped."""
        ...


class Shard(NamedTuple):
    """One of the shards of a projection: a `Share` that is the same at every position."""

    number: int = 0
    """From 0."""
    of: int = 1
    """Number of shards of the projection."""

    def has_endpoint(self, endpoint_id: bytes, position: int) -> bool:
        """See `Share`; docs/how-to/shards.md has the rule."""
        del position
        return crc32(endpoint_id) % self.of == self.number

    def has_message(self, position: int) -> bool:
        """See `Share`."""
        return position % self.of == self.number


WHOLE = Shard()
"""The only shard of a projection that is not divided."""

PUBLISHER = 0
"""The shard whose leader publishes the changes of all shards."""


class Frontier(NamedTuple):
    """What every shard has folded: a `Share` that ends for each shard at another position."""

    positions: tuple[int, ...]
    """The last position that each shard has folded, in the order of the shards."""

    def has_endpoint(self, endpoint_id: bytes, position: int) -> bool:
        """See `Share`."""
        return position <= self.positions[crc32(endpoint_id) % len(self.positions)]

    def has_message(self, position: int) -> bool:
        """See `Share`."""
        return position <= self.positions[position % len(self.positions)]


class Muster(NamedTuple):
    """The workers of a projection with several shards, and the shards that none of them leads."""

    workers: int
    """Number of workers, on all machines."""
    free: tuple[int, ...]
    """The shards that have no leader, in order."""


def shard_of(endpoint_id: str, shards: int) -> int:
    """Return the number of the shard that an endpoint belongs to."""
    return crc32(endpoint_id.encode()) % shards
