"""The facts that endpoint events state, whatever revision of the protocol carried them.

Each is a named tuple, for the same reason as `Stamp`,
and names the endpoints it is about: at least one, in the order of the message, each once.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from projector.domain.stamps import Stamp

Json: TypeAlias = Any
"""A JSON value; a recursive alias would be more than what reads registers back can follow."""


class Connected(NamedTuple):
    """The endpoints opened a communication session, on the replica that the stamp names."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    app_version: str
    """Empty where the event did not say."""


class Disconnected(NamedTuple):
    """The session of the endpoints was closed."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]


class Registered(NamedTuple):
    """The endpoints were registered for the first time."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    app_version: str


class AppVersionUpdated(NamedTuple):
    """The endpoints were registered in another application version."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    app_version: str
    previous_app_version: str


class MetadataUpdated(NamedTuple):
    """Metadata keys of the endpoints appeared, changed or went."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    present: Mapping[str, Json]
    """The added and updated keys with their values; None where the revision carries none."""
    removed: tuple[str, ...]
    """None of these is also in `present`."""


class ConfigAvailable(NamedTuple):
    """A configuration was announced for the endpoints."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    config_id: str


class ConfigApplied(NamedTuple):
    """The endpoints confirmed that they applied a configuration."""

    stamp: Stamp
    endpoint_ids: tuple[str, ...]
    config_id: str


Event: TypeAlias = (
    Connected | Disconnected | Registered | AppVersionUpdated | MetadataUpdated | ConfigAvailable | ConfigApplied
)
