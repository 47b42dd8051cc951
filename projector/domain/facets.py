"""What a facet of an endpoint's state is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from projector.domain.attribution import Cause, Part, Past, Shown
from projector.domain.stamps import Stamp
from projector.domain.trimmed import Trimmed


class State(Protocol):
    """The registers of one facet of an endpoint."""

    @property
    def unregistered(self) -> Stamp | None:
        """The latest unregistration: an event that does not supersede it is late, whatever else is held.

        Every facet holds it, so that an event loads no other facet than those it may change.
        """
        ...


S = TypeVar("S", bound=State)


class BareEvent(NamedTuple):
    """A rejected event of which the log has no more than the stamp."""

    stamp: Stamp


class Verdict(Enum):
    """What came of an event."""

    APPLIED = "applied"
    """It changed the state."""
    LATE = "late"
    """It does not supersede what is known."""
    FENCED = "fenced"
    """It is a disconnect from another replica than the one that holds the session."""

    __hash__ = object.__hash__  # the default hashes the name anew each time, and verdicts are counted per event


Rejection: TypeAlias = Literal[Verdict.LATE, Verdict.FENCED]

LATE: Rejection = Verdict.LATE
FENCED: Rejection = Verdict.FENCED


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet(Generic[S]):
    """One facet of the state: its shape, where it begins, and how events change it."""

    name: str
    state: type[S]
    initial: S
    reducers: Mapping[type[Any], Callable[[S, Any], S | Rejection]]
    """By type of event; a reducer is pure and returns a new state, or why there is none.

    If the event says nothing about the facet, it returns the very state it was given.
    What it returns for an event that the latest unregistration makes late is ignored.
    Every facet has one for `Unregistered`, which keeps what the event does not supersede.
    """
    kept: Callable[[S, Trimmed], S]
    """What is left of a state when everything that the stream still says is forgotten."""
    registers: Callable[[S], int]
    """How many registers of a state hold a value: a measure of the memory it takes."""
    columns: tuple[str, ...]
    """Names of the columns that users query."""
    values: Callable[[S], tuple[Any, ...]]
    """Returns the values of `columns`; times in Unix ms."""
    causes: Callable[[S], tuple[Cause | None, ...]]
    """Returns which event each of the `columns` rests on; None if no event has set it."""
    parts: Callable[[S], Mapping[str, Part]] = lambda _: {}
    """Returns the values within a column that have events of their own, by name; removed ones too."""
    recalled: Callable[[Shown, Past], S]
    """Returns the state that a row shows, as far as its visible columns tell: the reverse of `values`."""
    reasons: Mapping[type[Any], Callable[[S, Any], str | None]]
    """By type of event that a reducer rejects: why, given the state and the event; None if the state does not tell.

    The event is a `BareEvent` if only the log knows it.
    """


def filled(registers: Sequence[object]) -> int:
    """Return how many registers hold a value."""
    return len(registers) - registers.count(None)
