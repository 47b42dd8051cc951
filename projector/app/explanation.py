"""What an explanation says, from the database or from the stream."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from projector.domain.attribution import Cause, Part
from projector.domain.explanation import Attributed
from projector.domain.stamps import Stamp

Names: TypeAlias = Mapping[type[Any], str]
"""The `{group}.{type}` of each type of event, in one revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedColumn:
    """A column, and the event that set it; None where no event has, or where it is not known any more."""

    value: Any
    event: str | None = None
    """Group and type of the event."""
    position: int | None = None
    occurred_at: datetime | None = None
    originator: str | None = None
    replica: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedKey(ExplainedColumn):
    """A metadata key, and the event that set or removed it."""

    present: bool
    """False: it was removed; a late event does not bring it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedEvent:
    """What an event, or a correction, did to a facet."""

    position: int | None
    """None for a correction, like everything else that a message would say."""
    occurred_at: datetime | None
    event: str | None
    facet: str
    verdict: str
    originator: str | None
    replica: str | None
    reason: str | None
    """A sentence for a rejection or a correction."""
    before: Mapping[str, Any] | None
    """The columns that changed, with their old values as in JSON."""
    after: Mapping[str, Any] | None
    commit_no: int | None = None
    """Number of the commit that changed the table; None in a replay."""
    committed_at: datetime | None = None


class Replayed(NamedTuple):
    """What was read of a stream."""

    position: int
    """Position up to which it was read."""
    first: int
    """Position at which the stream begins now."""
    gone: int
    """Messages that are gone from its beginning or from within it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why the columns of an endpoint are what they are."""

    endpoint_id: str
    columns: Mapping[str, ExplainedColumn]
    events: Sequence[ExplainedEvent]
    """Newest first."""
    older: bool
    """Whether there are more than these; an event has one for each facet."""
    keys: Mapping[str, ExplainedKey]
    """Each metadata key; empty for a past moment unless replayed: the log does not tell the event of each key."""
    known_since: datetime | None = None
    """Since when changes are recorded; None: they are not, or `is_permitted` is false, or it is a replay."""
    is_permitted: bool = True
    """Whether the role may read the log of changes."""
    unfounded: Sequence[str] = ()
    """Columns with a value that no event implies, since another program has written to the table."""
    replayed: Replayed | None = None
    """What was read of the stream; None: nothing, the answer is from the database."""
    unknown: str | None = None
    """Why the type or the origin of some events is not known; None: all are."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of `projector explain --json`."""
        return {
            "endpoint_id": self.endpoint_id,
            "columns": {name: _fields(column) for name, column in self.columns.items()},
            "events": [_fields(event, without=("commit_no", "committed_at")) for event in self.events],
        }


class Sender(NamedTuple):
    """What a message was, and where it came from."""

    event: str
    """Group and type."""
    originator: str
    replica: str | None


def settle(
    columns: Attributed, names: Names, senders: Mapping[int, Sender]
) -> tuple[dict[str, ExplainedColumn], set[int]]:
    """Name the event of each column; also return the positions of those whose type or origin is not known.

    The registers that one event set have its position in common, and only some types of event set all of them.
    """
    possible: dict[int, set[str]] = {}
    for _, cause in columns.values():
        if cause is not None:
            named = _possible(cause, names)
            possible[cause.stamp.position] = possible.get(cause.stamp.position, named) & named
    settled: dict[str, ExplainedColumn] = {}
    unsettled: set[int] = set()
    for name, (value, cause) in columns.items():
        shown = moment(value) if name.endswith("_at") else value
        if cause is None:
            settled[name] = ExplainedColumn(value=shown)
            continue
        stamp = cause.stamp
        events = possible[stamp.position] if stamp.position else _possible(cause, names)
        sender = senders.get(stamp.position)
        if sender is not None and sender.event in events and stamp.originator in ("", sender.originator):
            events = {sender.event}
            stamp = stamp._replace(originator=sender.originator, replica=sender.replica)
        if stamp.position and (len(events) > 1 or not stamp.originator):
            unsettled.add(stamp.position)
        settled[name] = ExplainedColumn(value=shown, **_behind(stamp, events))
    return settled, unsettled


def settle_keys(parts: Mapping[str, Part], names: Names) -> dict[str, ExplainedKey]:
    """Name the event of each metadata key."""
    return {
        name: ExplainedKey(value=value, present=present, **_behind(cause.stamp, _possible(cause, names)))
        for name, (present, value, cause) in parts.items()
    }


def _possible(cause: Cause, names: Names) -> set[str]:
    return {names[kind] for kind in cause.kinds if kind in names}


def _behind(stamp: Stamp, events: Collection[str]) -> dict[str, Any]:
    """Return the fields of the event with a stamp, given the names that it may have."""
    return {
        "event": next(iter(events)) if len(events) == 1 else None,
        "position": stamp.position or None,
        "occurred_at": moment(stamp.occurred_at),
        "originator": stamp.originator or None,
        "replica": stamp.replica,
    }


def moment(unix_ms: int | None) -> Any:
    """Return a time; one that only a damaged row can hold stays a number."""
    if unix_ms is None:
        return None
    try:
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=unix_ms)
    except OverflowError:
        return unix_ms


def _fields(explained: ExplainedColumn | ExplainedEvent, *, without: Collection[str] = ()) -> dict[str, Any]:
    return {field.name: getattr(explained, field.name) for field in fields(explained) if field.name not in without}
