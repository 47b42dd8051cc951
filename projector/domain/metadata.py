"""Metadata: a register per key."""

from collections.abc import Mapping
from typing import NamedTuple

from projector.domain import stamps
from projector.domain.events import Json, MetadataUpdated, Unregistered
from projector.domain.facets import LATE, Facet, Rejection
from projector.domain.stamps import Stamp, supersedes, surviving
from projector.domain.trimmed import Trimmed


class Key(NamedTuple):
    """A metadata key; a removed one stays as a tombstone, so that a late event cannot bring it back."""

    present: bool
    value: Json
    stamp: Stamp


class Metadata(NamedTuple):
    """Every key that an event has named, and the latest event about any of them."""

    keys: Mapping[str, Key]
    changed: Stamp | None
    unregistered: Stamp | None = None

    @property
    def values(self) -> dict[str, Json]:
        """The present keys and their values."""
        return {name: key.value for name, key in self.keys.items() if key.present}


def update(state: Metadata, event: MetadataUpdated) -> Metadata | Rejection:
    """Set each key of the event on its own, and the stamp of the facet."""
    stamp = event.stamp
    keys = dict(state.keys)
    taken = False
    # Present keys come first: a stamp does not supersede itself, so a key that is in both stays.
    for name, value in event.present.items():
        held = keys.get(name)
        if held is None or supersedes(stamp, held.stamp):
            keys[name] = Key(present=True, value=value, stamp=stamp)
            taken = True
    for name in event.removed:
        held = keys.get(name)
        if held is None or supersedes(stamp, held.stamp):
            keys[name] = Key(present=False, value=None, stamp=stamp)
            taken = True
    if supersedes(stamp, state.changed):
        return Metadata(keys, stamp, state.unregistered)
    return Metadata(keys, state.changed, state.unregistered) if taken else LATE


def unregister(state: Metadata, event: Unregistered) -> Metadata:
    """Drop the keys of the life that ended, tombstones too: none of its late events can bring them back."""
    end = event.stamp
    keys = {name: key for name, key in state.keys.items() if not supersedes(end, key.stamp)}
    return Metadata(keys, surviving(state.changed, end), end)


def kept(state: Metadata, trimmed: Trimmed) -> Metadata:
    """Keep only what was set by messages that have left the stream."""
    keys = {name: key for name, key in state.keys.items() if key.stamp.position in trimmed}
    return Metadata(keys, stamps.kept(state.changed, trimmed), stamps.kept(state.unregistered, trimmed))


FACET = Facet(
    name="metadata",
    state=Metadata,
    initial=Metadata({}, None),
    reducers={MetadataUpdated: update, Unregistered: unregister},
    kept=kept,
    registers=lambda state: len(state.keys) + 2,
)
