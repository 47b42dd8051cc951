"""Connectivity: whether the endpoint is in session, and which replica holds the session."""

from typing import Any, Literal, NamedTuple, TypeAlias

from projector.domain import stamps
from projector.domain.attribution import Cause, Past, Shown, caused
from projector.domain.events import Connected, Disconnected, Unregistered
from projector.domain.facets import FENCED, LATE, BareEvent, Facet, Rejection, filled
from projector.domain.sentences import described, newer, sender, when
from projector.domain.stamps import Stamp, from_other_replica, supersedes, surviving, time_of
from projector.domain.trimmed import Trimmed

Status: TypeAlias = Literal["unknown", "connected", "disconnected"]


class Connectivity(NamedTuple):
    """The latest connect, and the disconnect that ended its session or an earlier one."""

    connected: Stamp | None = None
    disconnected: Stamp | None = None
    unregistered: Stamp | None = None

    @property
    def rests_on(self) -> tuple[Status, Stamp | None]:
        """The status, and the connect or disconnect it rests on.

        Silence never changes a status.
        """
        opened, closed = self.connected, self.disconnected
        if opened is None:
            return ("unknown", None) if closed is None else ("disconnected", closed)
        if closed is None or not _ends(closed, opened):
            return "connected", opened
        return "disconnected", closed


def connect(state: Connectivity, event: Connected) -> Connectivity | Rejection:
    """Open a session: its replica becomes the holder."""
    if not supersedes(event.stamp, state.connected):
        return LATE
    return Connectivity(event.stamp, state.disconnected, state.unregistered)


def disconnect(state: Connectivity, event: Disconnected) -> Connectivity | Rejection:
    """Close the session, unless another replica is known to hold it.

    A stored disconnect of an earlier session does not make this one late, even if its time is later:
    otherwise a fast clock of the replica of that session could keep the endpoint connected forever.
    """
    opened, closed = state.connected, state.disconnected
    if opened is not None:
        if from_other_replica(event.stamp, opened):
            return FENCED
        if not supersedes(event.stamp, opened):
            return LATE
        if closed is not None and not _ends(closed, opened):
            closed = None
    if not supersedes(event.stamp, closed):
        return LATE
    return Connectivity(opened, event.stamp, state.unregistered)


def unregister(state: Connectivity, event: Unregistered) -> Connectivity:
    """Drop the connect and the disconnect of the life that ended."""
    end = event.stamp
    return Connectivity(surviving(state.connected, end), surviving(state.disconnected, end), end)


def kept(state: Connectivity, trimmed: Trimmed) -> Connectivity:
    """Keep only what was set by messages that have left the stream."""
    return Connectivity(
        stamps.kept(state.connected, trimmed),
        stamps.kept(state.disconnected, trimmed),
        stamps.kept(state.unregistered, trimmed),
    )


def _ends(closed: Stamp, opened: Stamp) -> bool:
    """Return whether a disconnect ends the session that a connect opened.

    A disconnect that is known to come from another replica says nothing about this session.
    """
    return not from_other_replica(closed, opened) and supersedes(closed, opened)


def values(state: Connectivity) -> tuple[Any, ...]:
    """Return the values of the columns."""
    status, decided_by = state.rests_on
    opened = state.connected
    holder = (None, None) if opened is None else (opened.originator, opened.replica)
    return status, time_of(decided_by), time_of(opened), time_of(state.disconnected), *holder


def causes(state: Connectivity) -> tuple[Cause | None, ...]:
    """Return the event that each column rests on."""
    opened, closed = caused(state.connected, Connected), caused(state.disconnected, Disconnected)
    decided_by = opened if state.rests_on[0] == "connected" else closed
    return decided_by, decided_by, opened, closed, opened, opened


def recalled(shown: Shown, past: Past) -> Connectivity:
    """Return the state that a row shows."""
    opened = past.at(shown["connected_at"], Connected)
    if opened is not None:
        opened = opened._replace(originator=shown["connected_originator"], replica=shown["connected_replica"])
    return Connectivity(
        opened, past.at(shown["disconnected_at"], Disconnected), past.at(shown["unregistered_at"], Unregistered)
    )


def why_not_connected(state: Connectivity, event: Connected | BareEvent) -> str | None:
    """Return why a connect is rejected."""
    return newer("a connect {} is newer", state.connected, event.stamp)


def why_not_disconnected(state: Connectivity, event: Disconnected | BareEvent) -> str | None:
    """Return why a disconnect is rejected."""
    opened, closed = state.connected, state.disconnected
    if opened is not None:
        if from_other_replica(event.stamp, opened):
            return f"the session is held by {sender(opened)} since {when(opened)}"
        if not supersedes(event.stamp, opened):
            return f"it is older than the connect {described(opened)} that opened the session"
        if closed is not None and not _ends(closed, opened):
            return None
    return newer("a disconnect {} is newer", closed, event.stamp)


FACET = Facet(
    name="connectivity",
    state=Connectivity,
    initial=Connectivity(),
    reducers={Connected: connect, Disconnected: disconnect, Unregistered: unregister},
    kept=kept,
    registers=filled,
    columns=(
        "connectivity_status",
        "connectivity_changed_at",
        "connected_at",
        "disconnected_at",
        "connected_originator",
        "connected_replica",
    ),
    values=values,
    causes=causes,
    recalled=recalled,
    reasons={Connected: why_not_connected, Disconnected: why_not_disconnected},
)
