"""Endpoint events, independent of the protocol revision.

Each is a named tuple, for the same reason as `Stamp`,
and names the endpoints it is about: at least one, in the order of the message, each once.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from projector.domain.stamps import Stamp

Json: TypeAlias = str | None
"""A JSON value as the text that the event had, so that a number keeps its digits; None: null."""


class Connected(NamedTuple):
    """The endpoints opened a communication session, on the replica that the stamp names."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    app_version: str
    """Empty if the event names none."""


class Disconnected(NamedTuple):
    """The session of the endpoints was closed."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]


class Registered(NamedTuple):
    """The endpoints were registered for the first time."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    app_version: str


class Unregistered(NamedTuple):
    """The endpoints were unregistered: a life of each has ended."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]


class AppVersionUpdated(NamedTuple):
    """The endpoints were registered in another application version."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    app_version: str
    previous_app_version: str


class MetadataUpdated(NamedTuple):
    """Metadata keys of the endpoints were added, changed or removed."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    present: Mapping[str, Json]
    """The added and updated keys with their values; null if the revision carries none."""
    removed: tuple[str, ...]
    """None of these is also in `present`."""


class ConfigAvailable(NamedTuple):
    """A configuration was announced for the endpoints."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    config_id: str
    """Empty if no configuration is assigned any more (7/CMP, absent configuration)."""


class ConfigApplied(NamedTuple):
    """The endpoints confirmed that they applied a configuration."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    config_id: str
    """Empty if they confirmed that they have none."""


class ConfigFailed(NamedTuple):
    """The endpoints reported that they could not apply a configuration."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    config_id: str
    code: int
    """Status code, outside of 200 to 299."""
    reason: str | None


Event: TypeAlias = (
    Connected
    | Disconnected
    | Registered
    | Unregistered
    | AppVersionUpdated
    | MetadataUpdated
    | ConfigAvailable
    | ConfigApplied
    | ConfigFailed
)
