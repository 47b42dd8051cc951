"""Configuration: the latest announced, confirmed and failed, and what is pending between them."""

from typing import Any, Literal, NamedTuple, TypeAlias

from projector.domain import stamps
from projector.domain.attribution import Cause, Past, Shown, caused
from projector.domain.events import ConfigApplied, ConfigAvailable, ConfigFailed, Unregistered
from projector.domain.facets import LATE, BareEvent, Facet, Rejection, filled
from projector.domain.sentences import newer
from projector.domain.stamps import Register, Stamp, register_kept, register_surviving, supersedes, take
from projector.domain.trimmed import Trimmed

Status: TypeAlias = Literal["none", "pending", "applied", "failed"]

ABSENT = ""
"""The id of no configuration (7/CMP); nothing applied counts as this."""


class Failure(NamedTuple):
    """What an endpoint could not apply, and why."""

    config_id: str
    code: int
    reason: str | None


class Configuration(NamedTuple):
    """Three registers, so that a confirmation may arrive first, and a configuration may be announced again."""

    available: Register[str] | None = None
    applied: Register[str] | None = None
    failed: Register[Failure] | None = None
    unregistered: Stamp | None = None

    @property
    def status(self) -> Status:
        """`failed` while a failure stands, else `pending` while the announced configuration is not applied."""
        available = self.available
        applied_id = ABSENT if self.applied is None else self.applied.value
        if self._failure_stands:
            return "failed"
        if available is not None and available.value != applied_id:
            return "pending"
        return "none" if applied_id == ABSENT else "applied"

    @property
    def pending_id(self) -> str | None:
        """The announced configuration while it is pending; empty while the endpoint should have none."""
        return self.available.value if self.available is not None and self.status == "pending" else None

    @property
    def _failure_stands(self) -> bool:
        """Whether neither a confirmation nor another announcement followed the failure."""
        failed, available = self.failed, self.available
        if failed is None or not supersedes(failed.stamp, self.applied and self.applied.stamp):
            return False
        return available is None or (
            failed.value.config_id == available.value and supersedes(failed.stamp, available.stamp)
        )


def announce(state: Configuration, event: ConfigAvailable) -> Configuration | Rejection:
    """Set the configuration that became available."""
    available = take(state.available, event.config_id, event.stamp)
    if available is state.available:
        return LATE
    return Configuration(available, state.applied, state.failed, state.unregistered)


def apply(state: Configuration, event: ConfigApplied) -> Configuration | Rejection:
    """Set the configuration that the endpoint confirmed."""
    applied = take(state.applied, event.config_id, event.stamp)
    if applied is state.applied:
        return LATE
    return Configuration(state.available, applied, state.failed, state.unregistered)


def fail(state: Configuration, event: ConfigFailed) -> Configuration | Rejection:
    """Set the failure to apply a configuration."""
    failed = take(state.failed, Failure(event.config_id, event.code, event.reason), event.stamp)
    if failed is state.failed:
        return LATE
    return Configuration(state.available, state.applied, failed, state.unregistered)


def unregister(state: Configuration, event: Unregistered) -> Configuration:
    """Drop the configurations of the life that ended."""
    end = event.stamp
    return Configuration(
        register_surviving(state.available, end),
        register_surviving(state.applied, end),
        register_surviving(state.failed, end),
        end,
    )


def kept(state: Configuration, trimmed: Trimmed) -> Configuration:
    """Keep only what was set by messages that have left the stream."""
    return Configuration(
        register_kept(state.available, trimmed),
        register_kept(state.applied, trimmed),
        register_kept(state.failed, trimmed),
        stamps.kept(state.unregistered, trimmed),
    )


def values(state: Configuration) -> tuple[Any, ...]:
    """Return the values of the columns."""
    return (
        state.status,
        *_value_at(state.available),
        *_value_at(state.applied),
        state.pending_id,
        *_failure(state.failed),
    )


def _value_at(register: Register[str] | None) -> tuple[str | None, int | None]:
    return (None, None) if register is None else (register.value, register.stamp.occurred_at)


def _failure(register: Register[Failure] | None) -> tuple[Any, ...]:
    if register is None:
        return None, None, None, None
    failure = register.value
    return failure.config_id, register.stamp.occurred_at, failure.code, failure.reason


def causes(state: Configuration) -> tuple[Cause | None, ...]:
    """Return the event that each column rests on."""
    announced, confirmed = caused(state.available, ConfigAvailable), caused(state.applied, ConfigApplied)
    failed = caused(state.failed, ConfigFailed)
    status = state.status
    decided_by = failed if status == "failed" else announced if status == "pending" else confirmed or announced
    pending = announced if state.pending_id is not None else None
    return decided_by, announced, announced, confirmed, confirmed, pending, failed, failed, failed, failed


def recalled(shown: Shown, past: Past) -> Configuration:
    """Return the state that a row shows."""
    announced_by = past.at(shown["config_available_at"], ConfigAvailable)
    confirmed_by = past.at(shown["config_applied_at"], ConfigApplied)
    failed_by = past.at(shown["config_failed_at"], ConfigFailed)
    failure = Failure(shown["config_failed_id"], shown["config_failure_code"], shown["config_failure_reason"])
    return Configuration(
        announced_by and Register(shown["config_available_id"], announced_by),
        confirmed_by and Register(shown["config_applied_id"], confirmed_by),
        failed_by and Register(failure, failed_by),
        past.at(shown["unregistered_at"], Unregistered),
    )


def why_not_announced(state: Configuration, event: ConfigAvailable | BareEvent) -> str | None:
    """Return why an announcement is rejected."""
    return newer("an announcement {} is newer", state.available, event.stamp)


def why_not_applied(state: Configuration, event: ConfigApplied | BareEvent) -> str | None:
    """Return why a confirmation is rejected."""
    return newer("a confirmation {} is newer", state.applied, event.stamp)


def why_not_failed(state: Configuration, event: ConfigFailed | BareEvent) -> str | None:
    """Return why a failure is rejected."""
    return newer("a failure {} is newer", state.failed, event.stamp)


FACET = Facet(
    name="configuration",
    state=Configuration,
    initial=Configuration(),
    reducers={ConfigAvailable: announce, ConfigApplied: apply, ConfigFailed: fail, Unregistered: unregister},
    kept=kept,
    registers=filled,
    columns=(
        "config_status",
        "config_available_id",
        "config_available_at",
        "config_applied_id",
        "config_applied_at",
        "config_pending_id",
        "config_failed_id",
        "config_failed_at",
        "config_failure_code",
        "config_failure_reason",
    ),
    values=values,
    causes=causes,
    recalled=recalled,
    reasons={ConfigAvailable: why_not_announced, ConfigApplied: why_not_applied, ConfigFailed: why_not_failed},
)
