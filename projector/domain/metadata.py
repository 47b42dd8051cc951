"""Metadata: a register per key."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from projector.domain import stamps
from projector.domain.attribution import Cause, Part, Past, Shown, caused
from projector.domain.events import Json, MetadataUpdated, Unregistered
from projector.domain.facets import LATE, BareEvent, Facet, Rejection, filled
from projector.domain.sentences import described, newer
from projector.domain.stamps import Stamp, supersedes, surviving, time_of
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


def values(state: Metadata) -> tuple[Any, ...]:
    """Return the values of the columns; that of `metadata` has JSON texts."""
    return state.values, time_of(state.changed)


def causes(state: Metadata) -> tuple[Cause | None, ...]:
    """Return the event that each column rests on; the whole of `metadata` on the latest one."""
    latest = caused(state.changed, MetadataUpdated)
    return latest, latest


def parts(state: Metadata) -> dict[str, Part]:
    """Return each key with its own event."""
    return {
        name: Part(key.present, key.value, Cause(key.stamp, (MetadataUpdated,)))
        for name, key in sorted(state.keys.items())
    }


def recalled(shown: Shown, past: Past) -> Metadata:
    """Return the state that a row shows, with the latest event for each key, and without values."""
    changed = past.at(shown["metadata_changed_at"], MetadataUpdated)
    keys = {} if changed is None else {name: Key(present=True, value=None, stamp=changed) for name in shown["metadata"]}
    return Metadata(keys, changed, past.at(shown["unregistered_at"], Unregistered))


def why_not_updated(state: Metadata, event: MetadataUpdated | BareEvent) -> str | None:
    """Return why an update is rejected."""
    if isinstance(event, BareEvent):
        return newer("newer events changed every key it names, the latest {}", state.changed, event.stamp)
    named = {name: state.keys[name] for name in (*event.present, *event.removed) if name in state.keys}
    if not named:
        return newer("a metadata event {} is newer", state.changed, event.stamp)
    some = "; ".join(
        f"{name!r} was {_done(key)} {described(key.stamp)}" for name, key in islice(named.items(), _KEYS_NAMED)
    )
    more = f"; and {len(named) - _KEYS_NAMED} more" if len(named) > _KEYS_NAMED else ""
    return f"every key it names was changed by a newer event: {some}{more}"


def _done(key: Key) -> str:
    return "set" if key.present else "removed"


_KEYS_NAMED = 3

FACET = Facet(
    name="metadata",
    state=Metadata,
    initial=Metadata({}, None),
    reducers={MetadataUpdated: update, Unregistered: unregister},
    kept=kept,
    registers=lambda state: len(state.keys) + filled((state.changed, state.unregistered)),
    columns=("metadata", "metadata_changed_at"),
    values=values,
    causes=causes,
    parts=parts,
    recalled=recalled,
    reasons={MetadataUpdated: why_not_updated},
)
