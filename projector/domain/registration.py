"""Registration: whether the endpoint is registered, and since when."""

from typing import Any, Literal, NamedTuple, TypeAlias

from projector.domain import stamps
from projector.domain.attribution import Cause, Past, Shown, caused
from projector.domain.events import Registered, Unregistered
from projector.domain.facets import LATE, BareEvent, Facet, Rejection, filled
from projector.domain.sentences import newer
from projector.domain.stamps import Stamp, supersedes, surviving, time_of
from projector.domain.trimmed import Trimmed

Status: TypeAlias = Literal["unknown", "registered", "unregistered"]


class Registration(NamedTuple):
    """The registration of the current life, and the unregistration that ended the previous one."""

    registered: Stamp | None = None
    unregistered: Stamp | None = None

    @property
    def status(self) -> Status:
        """`unknown` for an endpoint whose registration left the stream before it was folded."""
        if self.registered is not None:
            return "registered"
        return "unknown" if self.unregistered is None else "unregistered"


def register(state: Registration, event: Registered) -> Registration | Rejection:
    """Set the registration."""
    if not supersedes(event.stamp, state.registered):
        return LATE
    return Registration(event.stamp, state.unregistered)


def unregister(state: Registration, event: Unregistered) -> Registration:
    """End the life; a registration that is newer than a late unregistration stays."""
    return Registration(surviving(state.registered, event.stamp), event.stamp)


def kept(state: Registration, trimmed: Trimmed) -> Registration:
    """Keep only what was set by messages that have left the stream."""
    return Registration(stamps.kept(state.registered, trimmed), stamps.kept(state.unregistered, trimmed))


def values(state: Registration) -> tuple[Any, ...]:
    """Return the values of the columns."""
    return state.status, time_of(state.registered), time_of(state.unregistered)


def causes(state: Registration) -> tuple[Cause | None, ...]:
    """Return the event that each column rests on."""
    began, ended = caused(state.registered, Registered), caused(state.unregistered, Unregistered)
    return began or ended, began, ended


def recalled(shown: Shown, past: Past) -> Registration:
    """Return the state that a row shows."""
    return Registration(past.at(shown["registered_at"], Registered), past.at(shown["unregistered_at"], Unregistered))


def why_not_registered(state: Registration, event: Registered | BareEvent) -> str | None:
    """Return why a registration is rejected."""
    return newer("a registration {} is newer", state.registered, event.stamp)


FACET = Facet(
    name="registration",
    state=Registration,
    initial=Registration(),
    reducers={Registered: register, Unregistered: unregister},
    kept=kept,
    registers=filled,
    columns=("registration_status", "registered_at", "unregistered_at"),
    values=values,
    causes=causes,
    recalled=recalled,
    reasons={Registered: why_not_registered},
)
