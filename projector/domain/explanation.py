"""Why the columns of an endpoint are what they are, and why an event changed nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from projector.domain.attribution import Cause, Part, Shown, Trail, caused
from projector.domain.endpoint import EVENT_TYPES, FACETS, Endpoint
from projector.domain.events import Unregistered
from projector.domain.facets import LATE, BareEvent, Facet, Verdict
from projector.domain.json_text import parse_json
from projector.domain.moments import parse_time, time_text
from projector.domain.sentences import described
from projector.domain.stamps import Stamp, supersedes

CORRECTED = "corrected"
"""The verdict on what a rebuild or a retry changed."""

LAST_EVENT = ("last_event_seq", "last_event_at")
"""The visible columns that belong to no facet."""

Kinds: TypeAlias = tuple[type[Any], ...]
"""Types of event."""

Attributed: TypeAlias = Mapping[str, tuple[Any, Cause | None]]
"""By visible column: its value, and the event that it rests on."""

_BY_NAME: Mapping[str, Facet[Any]] = {facet.name: facet for facet in FACETS}


class Logged(NamedTuple):
    """A row of the log of changes."""

    commit_no: int
    committed_at: int
    """Unix ms."""
    facet: str
    verdict: str
    position: int | None
    occurred_at: int | None
    """Unix ms."""
    event: str | None
    originator: str | None
    replica: str | None
    before: Mapping[str, Any] | None
    """Columns as in JSON."""
    after: Mapping[str, Any] | None
    previous_event_seq: int
    previous_event_at: int | None

    @property
    def stamp(self) -> Stamp | None:
        """The stamp of the event; None for a correction."""
        if self.position is None or self.occurred_at is None or self.originator is None:
            return None
        return Stamp(self.position, self.occurred_at, self.originator, self.replica)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the database knows of an endpoint, at present or at a moment."""

    revision: str
    """Protocol revision of the events that were folded."""
    since: int | None
    """Unix ms from which on every change is logged; None: changes are not logged, or the role may not read the log."""
    is_permitted: bool
    """Whether the role may read the log."""
    endpoint: Endpoint | None
    """The present registers; None: there is no row now."""
    shown: Shown | None
    """The visible columns at the moment; None: there was no row."""
    changes: Sequence[Logged]
    """Up to the moment, newest first."""


def shown_in(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return visible columns from their JSON."""
    return {name: parse_time(value) if name.endswith("_at") else value for name, value in columns.items()}


def shown_by(endpoint: Endpoint) -> dict[str, Any]:
    """Return the visible columns that the states of an endpoint imply."""
    return {
        **{
            name: _plain(value)
            for facet, state in zip(FACETS, endpoint.states, strict=True)
            for name, value in zip(facet.columns, facet.values(state), strict=True)
        },
        "last_event_seq": endpoint.last_event_seq,
        "last_event_at": endpoint.last_event_at,
    }


def attributed(states: Sequence[Any], shown: Shown) -> Attributed:
    """Return the event that each column rests on, for the states that a row shows.

    A value that the state does not imply was set by no event.
    """
    found: dict[str, tuple[Any, Cause | None]] = {}
    for facet, state in zip(FACETS, states, strict=True):
        for name, value, cause in zip(facet.columns, facet.values(state), facet.causes(state), strict=True):
            found[name] = shown[name], cause if _agree(value, shown[name]) else None
    position = shown["last_event_seq"]
    if position:
        held = (cause for _, cause in found.values() if cause is not None and cause.stamp.position == position)
        latest = next(held, Cause(Stamp(position, shown["last_event_at"], "", None), tuple(EVENT_TYPES)))
        found |= {name: (shown[name], latest) for name in LAST_EVENT}
    else:
        found |= {name: (shown[name], None) for name in LAST_EVENT}
    return found


def extend(trail: Trail, changes: Iterable[Logged], kinds: Mapping[str, Kinds]) -> None:
    """Add the events that the log says were applied; `kinds` are the types of event by their names."""
    for change in changes:
        its_kinds = kinds.get(change.event or "")
        if change.stamp is not None and its_kinds and change.verdict == Verdict.APPLIED.value:
            trail.add(change.facet, Cause(change.stamp, its_kinds))


def parts_of(endpoint: Endpoint) -> dict[str, Part]:
    """Return the values within columns that have events of their own."""
    parts: dict[str, Part] = {}
    for facet, state in zip(FACETS, endpoint.states, strict=True):
        for name, part in facet.parts(state).items():
            parts[name] = part._replace(value=None if part.value is None else parse_json(part.value))
    return parts


def trail_of(endpoint: Endpoint | None) -> Trail:
    """Return the events that set the present registers."""
    trail = Trail()
    if endpoint is not None:
        for facet, state in zip(FACETS, endpoint.states, strict=True):
            for cause in (*facet.causes(state), caused(state.unregistered, Unregistered)):
                trail.add(facet.name, cause)
    return trail


def recalled(shown: Shown, trail: Trail) -> list[Any]:
    """Return the states of all facets that a row once showed, as far as its columns and a trail tell."""
    return [facet.recalled(shown, trail.seen_from(facet.name, shown["last_event_seq"])) for facet in FACETS]


def undone(shown: Shown, change: Logged) -> Shown:
    """Return the visible columns before a change of the log."""
    if change.before is not None:
        was: Shown = shown_in(change.before)
    elif change.after is not None and change.facet in _BY_NAME:
        was = {name: UNSEEN[name] for name in _BY_NAME[change.facet].columns}
    else:
        was = {}
    latest = {"last_event_seq": change.previous_event_seq, "last_event_at": change.previous_event_at}
    return {**shown, **was, **latest}


def why_logged(change: Logged, before: Shown, trail: Trail, kinds: Kinds) -> str | None:
    """Return the sentence for a change that is a rejection or a correction, given the columns before it; else None."""
    if change.verdict == CORRECTED:
        return _why_corrected(change)
    facet, stamp = _BY_NAME.get(change.facet), change.stamp
    if change.verdict == Verdict.APPLIED.value or facet is None or stamp is None:
        return None
    state = facet.recalled(before, trail.seen_from(facet.name, before["last_event_seq"]))
    return why_rejected(facet, Verdict(change.verdict), kinds, BareEvent(stamp), state)


def why_rejected(facet: Facet[Any], verdict: Verdict, kinds: Kinds, event: Any, state: Any) -> str:
    """Return the sentence for an event of one of some types that a facet rejected in a state."""
    ended = state.unregistered
    if verdict is LATE and ended is not None and not supersedes(event.stamp, ended):
        if Unregistered in kinds:
            return f"late: an unregistration {described(ended)} is newer"
        return f"late: it belongs to the life that ended with the unregistration {described(ended)}"
    whys = [facet.reasons[kind](state, event) for kind in kinds if kind in facet.reasons]
    given = " or ".join(dict.fromkeys(why for why in whys if why is not None))
    return f"{verdict.value}: {given or _UNKNOWN[verdict]}"


_UNKNOWN: Mapping[Verdict, str] = {
    Verdict.LATE: "a newer event had decided what it says",
    Verdict.FENCED: "another replica held the session",
}


def _why_corrected(change: Logged) -> str:
    what = f"{CORRECTED}: a rebuild or a retry at {time_text(change.committed_at)}"
    if change.before is None and change.after is None:
        return f"{what} changed no visible column of the facet"
    if change.before is None:
        return f"{what} added the row"
    if change.after is None:
        return f"{what} removed the row"
    return f"{what} changed {', '.join(change.after)}"


def difference(facet: Facet[Any], before: Any, after: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the visible columns that two states differ in, with the values of each as in the log."""
    pairs = zip(facet.columns, facet.values(before), facet.values(after), strict=True)
    changed = [(name, was, now) for name, was, now in pairs if was != now]
    return {name: _logged(name, was) for name, was, _ in changed}, {
        name: _logged(name, now) for name, _, now in changed
    }


def _logged(name: str, value: Any) -> Any:
    return time_text(value) if name.endswith("_at") else _plain(value)


def _plain(value: Any) -> Any:
    """Return a value of a facet without JSON texts in it."""
    if isinstance(value, dict):
        return {name: None if text is None else parse_json(text) for name, text in value.items()}
    return value


def _agree(implied: Any, shown: Any) -> bool:
    """Return whether a row shows what a state implies; a recalled state has the keys of metadata without values."""
    if not isinstance(implied, dict):
        return bool(implied == shown)
    return implied.keys() == shown.keys() and all(
        text is None or parse_json(text) == shown[name] for name, text in implied.items()
    )


UNSEEN: Shown = shown_by(Endpoint.unseen())
"""The columns of an endpoint that no event has named."""
