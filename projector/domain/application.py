"""Application: the version the endpoint runs, the one before, and when it was registered."""

from typing import NamedTuple

from projector.domain import stamps
from projector.domain.events import AppVersionUpdated, Connected, Registered
from projector.domain.facets import LATE, Facet, Rejection
from projector.domain.stamps import Register, Stamp, register_before, supersedes, take


class Application(NamedTuple):
    """Three registers, each taken on its own."""

    version: Register[str] | None = None
    previous: Register[str | None] | None = None
    registered: Stamp | None = None


def connect(state: Application, event: Connected) -> Application | Rejection:
    """Take the version that a connect names, if it names one."""
    version = _take_version(state, event.app_version, event.stamp)
    if version is state.version:
        return LATE
    return Application(version, state.previous, state.registered)


def register(state: Application, event: Registered) -> Application | Rejection:
    """Take the time of registration, and the version if there is one."""
    version = _take_version(state, event.app_version, event.stamp)
    registered = event.stamp if supersedes(event.stamp, state.registered) else state.registered
    if version is state.version and registered is state.registered:
        return LATE
    return Application(version, state.previous, registered)


def update_version(state: Application, event: AppVersionUpdated) -> Application | Rejection:
    """Take the new version and the one before it."""
    version = _take_version(state, event.app_version, event.stamp)
    previous = take(state.previous, event.previous_app_version or None, event.stamp)
    if version is state.version and previous is state.previous:
        return LATE
    return Application(version, previous, state.registered)


def before(state: Application, position: int) -> Application:
    """Forget what was set from a position on."""
    return Application(
        register_before(state.version, position),
        register_before(state.previous, position),
        stamps.before(state.registered, position),
    )


def _take_version(state: Application, name: str, stamp: Stamp) -> Register[str] | None:
    return take(state.version, name, stamp) if name else state.version


FACET = Facet(
    name="application",
    state=Application,
    initial=Application(),
    reducers={Connected: connect, Registered: register, AppVersionUpdated: update_version},
    before=before,
    registers=len,
)
