"""Explains an endpoint: the event behind each column, and what came of its latest events.

It answers from the database. `app.retrace` answers from the stream.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias

from projector.app.ports import Decoder
from projector.domain.attribution import Shown, Trail
from projector.domain.explanation import (
    UNSEEN,
    Attributed,
    Known,
    Logged,
    attributed,
    extend,
    recalled,
    trail_of,
    undone,
    why_logged,
)
from projector.domain.messages import Message
from projector.errors import NoEndpointError, PoisonError, ProjectorError

EVENTS_SHOWN = 20


class Records(Protocol):
    """What the database knows of an endpoint; see `storage.explanation.Records`."""

    async def load(self, endpoint_id: str, *, at: int | None, limit: int | None) -> Known:
        """Return what is known at present or at a moment (Unix ms), with the latest changes up to then.

        Raises:
            MomentUnknownError: the log does not go back so far.
        """
        ...

    async def find(self, endpoint_id: str, positions: Collection[int], times: Collection[int]) -> Sequence[Logged]:
        """Return the changes by events at some positions or times (Unix ms)."""
        ...


class Sender(NamedTuple):
    """What a message was, and where it came from."""

    event: str
    """Group and type."""
    originator: str
    replica: str | None


Look: TypeAlias = Callable[[int], Awaitable[Sender | None]]
"""Returns what the message at a position was; None if the stream no longer holds it."""

Names: TypeAlias = Mapping[type[Any], str]
"""The `{group}.{type}` of each type of event, in one revision."""


class Scope(NamedTuple):
    """What to explain."""

    at: int | None = None
    """The moment (Unix ms); None: now."""
    limit: int | None = EVENTS_SHOWN
    """How many of the latest events; None: all."""


NOW = Scope()


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
class ExplainedEvent:
    """What an event, or a correction, did to a facet."""

    position: int | None
    """None for a correction, as all that the message would say."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why the columns of an endpoint are what they are."""

    endpoint_id: str
    columns: Mapping[str, ExplainedColumn]
    events: Sequence[ExplainedEvent]
    """Newest first."""
    older: bool
    """Whether there are more events than these."""
    known_since: datetime | None
    """Since when changes are recorded; None: they are not."""
    unknown: str | None = None
    """Why the type or the origin of some events is not known; None: all are."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of `projector explain --json`."""
        return {
            "endpoint_id": self.endpoint_id,
            "columns": {name: _fields(column) for name, column in self.columns.items()},
            "events": [_fields(event) for event in self.events],
        }


def sender_of(message: Message, decoder: Decoder) -> Sender | None:
    """Return what a message was, and where it came from; None if it cannot be read."""
    origin = decoder.origin(message)
    return None if origin is None else Sender(message.type, origin.originator, origin.replica)


async def explain(
    records: Records,
    endpoint_id: str,
    names_in: Callable[[str], Names],
    scope: Scope = NOW,
    look: Look | None = None,
) -> Explanation:
    """Explain an endpoint.

    `names_in` returns the names of the events of a revision, and `look` finds out what the database does not know.

    Raises:
        NoEndpointError: there is no such endpoint.
        MomentUnknownError: the log does not go back so far.
    """
    at, limit = scope
    try:
        known = await records.load(endpoint_id, at=at, limit=None if limit is None else limit + 1)
    except PoisonError:
        known = None  # no endpoint has an id that Postgres cannot hold
    if known is None or (known.shown is None and not known.changes):
        raise NoEndpointError(endpoint_id, looked_in="the table" if at is None else "the table at that moment")
    past = _Past(known, names_in(known.revision), limit, present=at is None)
    unsettled = settle(past.columns, past.names, {})[1]
    if unsettled or past.trail.missed:
        past.learn(await records.find(endpoint_id, unsettled, past.trail.missed))
    columns, unsettled = settle(past.columns, past.names, past.senders)
    unknown = _GONE if unsettled else None
    if unsettled and look is not None:
        try:
            past.senders |= {position: sender for position in sorted(unsettled) if (sender := await look(position))}
        except ProjectorError as error:
            unknown = str(error)
        else:
            columns, unsettled = settle(past.columns, past.names, past.senders)
            unknown = _GONE if unsettled else None
    return Explanation(
        endpoint_id=endpoint_id,
        columns=columns,
        events=past.events(),
        older=limit is not None and len(known.changes) > limit,
        known_since=moment(known.since),
        unknown=unknown,
    )


_GONE = "neither the log of changes nor the stream holds their messages"


def settle(
    columns: Attributed, names: Names, senders: Mapping[int, Sender]
) -> tuple[dict[str, ExplainedColumn], set[int]]:
    """Name the event of each column; return also the positions of those whose type or origin is not known.

    The registers that one event set have its position in common, and only some types of event set all of them.
    """
    candidates: dict[int, set[str]] = {}
    for _, cause in columns.values():
        if cause is not None:
            named = {names[kind] for kind in cause.kinds if kind in names}
            candidates[cause.stamp.position] = candidates.get(cause.stamp.position, named) & named
    settled: dict[str, ExplainedColumn] = {}
    unsettled: set[int] = set()
    for name, (value, cause) in columns.items():
        shown = moment(value) if name.endswith("_at") else value
        if cause is None:
            settled[name] = ExplainedColumn(value=shown)
            continue
        position, occurred_at, originator, replica = cause.stamp
        possible = candidates[position] if position else {names[kind] for kind in cause.kinds if kind in names}
        sender = senders.get(position)
        if sender is not None and sender.event in possible and originator in ("", sender.originator):
            possible = {sender.event}
            originator, replica = sender.originator, sender.replica
        if position and (len(possible) > 1 or not originator):
            unsettled.add(position)
        settled[name] = ExplainedColumn(
            value=shown,
            event=next(iter(possible)) if len(possible) == 1 else None,
            position=position or None,
            occurred_at=moment(occurred_at),
            originator=originator or None,
            replica=replica,
        )
    return settled, unsettled


def moment(unix_ms: int | None) -> Any:
    """Return a time; one that only a damaged row can hold stays a number."""
    if unix_ms is None:
        return None
    try:
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=unix_ms)
    except OverflowError:
        return unix_ms


class _Past:
    """What the database knows, with the rejections explained."""

    def __init__(self, known: Known, names: Names, limit: int | None, *, present: bool) -> None:
        self.names = names
        self._known = known
        self._present = present
        self._changes = known.changes[:limit]
        self._kinds = {
            name: tuple(kind for kind, its_name in names.items() if its_name == name) for name in names.values()
        }
        self.trail: Trail = trail_of(known.endpoint)
        self.senders: dict[int, Sender] = {}
        """By position."""
        self.learn(known.changes)

    def learn(self, changes: Sequence[Logged]) -> None:
        """Take more changes into account."""
        extend(self.trail, changes, self._kinds)
        for change in changes:
            if change.stamp is not None and change.event is not None:
                self.senders[change.stamp.position] = Sender(change.event, *change.stamp[2:])
        self.columns = self._columns()
        self._reasons = list(self._explained())

    def events(self) -> list[ExplainedEvent]:
        """Return the changes with their reasons."""
        return [
            ExplainedEvent(
                position=change.position,
                occurred_at=moment(change.occurred_at),
                event=change.event,
                facet=change.facet,
                verdict=change.verdict,
                originator=change.originator,
                replica=change.replica,
                reason=reason,
                before=change.before,
                after=change.after,
            )
            for change, reason in zip(self._changes, self._reasons, strict=True)
        ]

    def _columns(self) -> Attributed:
        known = self._known
        if known.shown is None:
            return dict.fromkeys(UNSEEN, (None, None))
        present = known.endpoint.states if self._present and known.endpoint is not None else None
        return attributed(present or recalled(known.shown, self.trail), known.shown)

    def _explained(self) -> Iterator[str | None]:
        shown: Shown = self._known.shown or UNSEEN
        for change in self._changes:
            shown = undone(shown, change)
            yield why_logged(change, shown, self.trail, self._kinds.get(change.event or "", ()))


def _fields(explained: ExplainedColumn | ExplainedEvent) -> dict[str, Any]:
    return {field.name: getattr(explained, field.name) for field in fields(explained)}
