"""Application: the version the endpoint runs, and the one before."""

from typing import Any, NamedTuple

from projector.domain import stamps
from projector.domain.attribution import Cause, Past, Shown, caused
from projector.domain.events import AppVersionUpdated, Connected, Registered, Unregistered
from projector.domain.facets import LATE, BareEvent, Facet, Rejection, filled
from projector.domain.sentences import newer
from projector.domain.stamps import Register, Stamp, register_kept, register_surviving, surviving, take
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


def values(state: Application) -> tuple[Any, ...]:
    """Return the values of the columns."""
    version, previous = state.version, state.previous
    named = (None, None) if version is None else (version.value, version.stamp.occurred_at)
    return *named, None if previous is None else previous.value


def causes(state: Application) -> tuple[Cause | None, ...]:
    """Return the event that each column rests on."""
    version = caused(state.version, *_NAMING)
    return version, version, caused(state.previous, AppVersionUpdated)


def recalled(shown: Shown, past: Past) -> Application:
    """Return the state that a row shows."""
    named_by, ended_by = (
        past.at(shown["app_version_changed_at"], *_NAMING),
        past.at(shown["unregistered_at"], Unregistered),
    )
    updated_by = surviving(past.newest(AppVersionUpdated), ended_by) if ended_by else past.newest(AppVersionUpdated)
    return Application(
        named_by and Register(shown["app_version"], named_by),
        updated_by and Register(shown["previous_app_version"], updated_by),
        ended_by,
    )


def why_not_named(state: Application, event: Connected | Registered | AppVersionUpdated | BareEvent) -> str | None:
    """Return why the version that an event names is rejected."""
    return newer("a newer event named the version, {}", state.version, event.stamp)


def why_not_updated(state: Application, event: AppVersionUpdated | BareEvent) -> str | None:
    """Return why an update is rejected."""
    named = None if isinstance(event, AppVersionUpdated) and not event.app_version else why_not_named(state, event)
    return named or newer("an update {} is newer", state.previous, event.stamp)


_NAMING = (Connected, Registered, AppVersionUpdated)

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
    registers=filled,
    columns=("app_version", "app_version_changed_at", "previous_app_version"),
    values=values,
    causes=causes,
    recalled=recalled,
    reasons={Connected: why_not_named, Registered: why_not_named, AppVersionUpdated: why_not_updated},
)
