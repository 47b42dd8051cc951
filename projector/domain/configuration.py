"""Configuration: the latest announced, confirmed and failed, and what is pending between them."""

from typing import Literal, NamedTuple, TypeAlias

from projector.domain import stamps
from projector.domain.events import ConfigApplied, ConfigAvailable, ConfigFailed, Unregistered
from projector.domain.facets import LATE, Facet, Rejection
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
        """`failed` while the announced configuration has failed last, else `pending` while it is not applied."""
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


FACET = Facet(
    name="configuration",
    state=Configuration,
    initial=Configuration(),
    reducers={ConfigAvailable: announce, ConfigApplied: apply, ConfigFailed: fail, Unregistered: unregister},
    kept=kept,
    registers=len,
)
