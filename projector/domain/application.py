"""Application: the version the endpoint runs, and the one before."""

from typing import NamedTuple

from projector.domain import stamps
from projector.domain.events import AppVersionUpdated, Connected, Registered, Unregistered
from projector.domain.facets import LATE, Facet, Rejection
from projector.domain.stamps import Register, Stamp, register_kept, register_surviving, take
from projector.domain.trimmed import Trimmed


class Application(NamedTuple):
    """Two independent registers."""

    version: Register[str] | None = None
    previous: Register[str | None] | None = None
    unregistered: Stamp | None = None


def name_version(state: Application, event: Connected | Registered) -> Application | Rejection:
    """Set the version that a connect or a registration names; one that names none leaves the state as it is."""
    if not event.app_version:
        return state
    version = take(state.version, event.app_version, event.stamp)
    if version is state.version:
        return LATE
    return Application(version, state.previous, state.unregistered)


def update_version(state: Application, event: AppVersionUpdated) -> Application | Rejection:
    """Set the new version and the one before it."""
    version = take(state.version, event.app_version, event.stamp) if event.app_version else state.version
    previous = take(state.previous, event.previous_app_version or None, event.stamp)
    if version is state.version and previous is state.previous:
        return LATE
    return Application(version, previous, state.unregistered)


def unregister(state: Application, event: Unregistered) -> Application:
    """Drop the versions of the life that ended."""
    end = event.stamp
    return Application(register_surviving(state.version, end), register_surviving(state.previous, end), end)


def kept(state: Application, trimmed: Trimmed) -> Application:
    """Keep only what was set by messages that have left the stream."""
    return Application(
        register_kept(state.version, trimmed),
        register_kept(state.previous, trimmed),
        stamps.kept(state.unregistered, trimmed),
    )


FACET = Facet(
    name="application",
    state=Application,
    initial=Application(),
    reducers={
        Connected: name_version,
        Registered: name_version,
        AppVersionUpdated: update_version,
        Unregistered: unregister,
    },
    kept=kept,
    registers=len,
)
