"""Registration: whether the endpoint is registered, and since when."""

from typing import Literal, NamedTuple, TypeAlias

from projector.domain import stamps
from projector.domain.events import Registered, Unregistered
from projector.domain.facets import LATE, Facet, Rejection
from projector.domain.stamps import Stamp, supersedes, surviving
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


FACET = Facet(
    name="registration",
    state=Registration,
    initial=Registration(),
    reducers={Registered: register, Unregistered: unregister},
    kept=kept,
    registers=len,
)
