"""Explains an endpoint from the database: its registers, and the log of changes; `retrace` answers from the stream."""

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from projector.app.explanation import ExplainedEvent, Explanation, Names, Sender, moment, settle, settle_keys
from projector.app.ports import Decoder
from projector.domain.attribution import Shown, Trail
from projector.domain.explanation import (
    UNSEEN,
    Attributed,
    Known,
    Logged,
    attributed,
    extend,
    parts_of,
    recalled,
    shown_by,
    trail_of,
    undone,
    why_logged,
)
from projector.domain.messages import Message
from projector.errors import NoEndpointError, PoisonError, ProjectorError

EVENTS_SHOWN = 20


class Records(Protocol):
    """What the database knows of an endpoint; see `queries.explanation.Records`."""

    async def load(self, endpoint_id: str, *, at: int | None, limit: int | None) -> Known:
        """Return what is known at present or at a moment (Unix ms), with the latest changes up to then.

        Raises:
            MomentUnknownError: the log does not go back so far.
        """
        ...

    async def find(self, endpoint_id: str, positions: Collection[int], times: Collection[int]) -> Sequence[Logged]:
        """Return the changes by events at some positions or times (Unix ms)."""
        ...


Look: TypeAlias = Callable[[int], Awaitable[Sender | None]]
"""Returns what the message at a position was; None if the stream no longer holds it."""


class Scope(NamedTuple):
    """What to explain."""

    at: int | None = None
    """The moment (Unix ms); None: now."""
    limit: int | None = EVENTS_SHOWN
    """How many of the latest events; None: all."""


NOW = Scope()


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
    unknown = _BEFORE if past.forgotten else _GONE if unsettled else None
    if unsettled and look is not None:
        try:
            past.senders |= {position: sender for position in sorted(unsettled) if (sender := await look(position))}
        except ProjectorError as error:
            unknown = str(error)
        else:
            columns, unsettled = settle(past.columns, past.names, past.senders)
            unknown = _BEFORE if past.forgotten else _GONE if unsettled else None
    return Explanation(
        endpoint_id=endpoint_id,
        columns=columns,
        events=past.events(),
        older=limit is not None and len(known.changes) > limit,
        keys=settle_keys(parts_of(known.endpoint), past.names) if known.endpoint is not None and at is None else {},
        known_since=moment(known.since),
        is_permitted=known.is_permitted,
        unfounded=past.unfounded,
        unknown=unknown,
    )


_GONE = "neither the log of changes nor the stream holds their messages"
_BEFORE = "they came before the log of changes begins"


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

    @property
    def unfounded(self) -> list[str]:
        """The columns whose present value no event implies."""
        endpoint, shown = self._known.endpoint, self._known.shown
        if not self._present or endpoint is None or shown is None:
            return []
        return [name for name, implied in shown_by(endpoint).items() if implied != shown[name]]

    @property
    def forgotten(self) -> bool:
        """Whether an event behind a column is known by its time alone."""
        return any(cause is not None and not cause.stamp.position for _, cause in self.columns.values())

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
                commit_no=change.commit_no,
                committed_at=moment(change.committed_at),
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
