"""Connectivity: is the endpoint in session, and which replica holds the session."""

from typing import Literal, NamedTuple, TypeAlias

from projector.domain import stamps
from projector.domain.events import Connected, Disconnected
from projector.domain.facets import FENCED, LATE, Facet, Rejection
from projector.domain.stamps import Stamp, from_other_replica, supersedes

Status: TypeAlias = Literal["unknown", "connected", "disconnected"]


class Connectivity(NamedTuple):
    """The latest connect and the latest disconnect that counted."""

    connected: Stamp | None = None
    disconnected: Stamp | None = None

    @property
    def rests_on(self) -> tuple[Status, Stamp | None]:
        """The status, and the connect or disconnect it rests on.

        A disconnect ends the session it belongs to and no other:
        one that is known to come from another replica says nothing about the present session.
        Silence never changes a status.
        """
        opened, closed = self.connected, self.disconnected
        if opened is None:
            return ("unknown", None) if closed is None else ("disconnected", closed)
        if closed is None or from_other_replica(closed, opened) or not supersedes(closed, opened):
            return "connected", opened
        return "disconnected", closed


def connect(state: Connectivity, event: Connected) -> Connectivity | Rejection:
    """Open a session: its replica becomes the holder."""
    if not supersedes(event.stamp, state.connected):
        return LATE
    return Connectivity(event.stamp, state.disconnected)


def disconnect(state: Connectivity, event: Disconnected) -> Connectivity | Rejection:
    """Close the session, unless its holder is known to be somebody else."""
    opened = state.connected
    if opened is not None:
        if from_other_replica(event.stamp, opened):
            return FENCED
        if not supersedes(event.stamp, opened):
            return LATE
    if not supersedes(event.stamp, state.disconnected):
        return LATE
    return Connectivity(opened, event.stamp)


def before(state: Connectivity, position: int) -> Connectivity:
    """Forget the connects and disconnects from a position on."""
    return Connectivity(stamps.before(state.connected, position), stamps.before(state.disconnected, position))


FACET = Facet(
    name="connectivity",
    state=Connectivity,
    initial=Connectivity(),
    reducers={Connected: connect, Disconnected: disconnect},
    before=before,
    registers=len,
)
