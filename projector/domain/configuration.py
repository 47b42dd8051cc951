"""Configuration: the latest announced, the latest confirmed, and what is pending between them."""

from typing import Literal, NamedTuple, TypeAlias

from projector.domain.events import ConfigApplied, ConfigAvailable
from projector.domain.facets import LATE, Facet, Rejection
from projector.domain.stamps import Register, register_before, take

Status: TypeAlias = Literal["none", "pending", "applied"]


class Configuration(NamedTuple):
    """Two registers: a confirmation may arrive before its announcement, and A, B, A again works."""

    available: Register[str] | None = None
    applied: Register[str] | None = None

    @property
    def pending_id(self) -> str | None:
        """The announced configuration, while it is not the applied one."""
        if self.available is None or (self.applied is not None and self.applied.value == self.available.value):
            return None
        return self.available.value

    @property
    def status(self) -> Status:
        """`pending` while something is, else `applied` if anything was confirmed, else `none`."""
        if self.pending_id is not None:
            return "pending"
        return "none" if self.applied is None else "applied"


def announce(state: Configuration, event: ConfigAvailable) -> Configuration | Rejection:
    """Take the configuration that became available."""
    available = take(state.available, event.config_id, event.stamp)
    return LATE if available is state.available else Configuration(available, state.applied)


def apply(state: Configuration, event: ConfigApplied) -> Configuration | Rejection:
    """Take the configuration that the endpoint confirmed."""
    applied = take(state.applied, event.config_id, event.stamp)
    return LATE if applied is state.applied else Configuration(state.available, applied)


def before(state: Configuration, position: int) -> Configuration:
    """Forget what was announced or confirmed from a position on."""
    return Configuration(register_before(state.available, position), register_before(state.applied, position))


FACET = Facet(
    name="configuration",
    state=Configuration,
    initial=Configuration(),
    reducers={ConfigAvailable: announce, ConfigApplied: apply},
    before=before,
    registers=len,
)
