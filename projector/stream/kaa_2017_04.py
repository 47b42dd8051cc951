"""Revision kaa-2017-04 of 9/ENDPOINT_EVENTS, translated into the domain's own events."""

from collections.abc import Sequence
from sys import intern

from projector.domain.events import (
    AppVersionUpdated,
    ConfigApplied,
    ConfigAvailable,
    Connected,
    Disconnected,
    Event,
    MetadataUpdated,
    Registered,
)
from projector.domain.stamps import Stamp
from projector.stream.limits import checked_endpoint_id, checked_text
from projector.stream.revisions import EventType, Record, Revision


def _connected(record: Record, stamp: Stamp) -> Sequence[Event]:
    version = _version(record)
    return (Connected(stamp, (checked_endpoint_id(record["endpointId"]),), version),)


def _disconnected(record: Record, stamp: Stamp) -> Sequence[Event]:
    # The list may name an endpoint twice; an empty one is a valid event about no endpoint.
    endpoint_ids = tuple(dict.fromkeys(map(checked_endpoint_id, record["endpointIds"])))
    return (Disconnected(stamp, endpoint_ids),) if endpoint_ids else ()


def _registered(record: Record, stamp: Stamp) -> Sequence[Event]:
    version = _version(record)
    return (Registered(stamp, (checked_endpoint_id(record["endpointId"]),), version),)


def _app_version_updated(record: Record, stamp: Stamp) -> Sequence[Event]:
    version = _version(record)
    previous = checked_text(record["previousAppVersionName"], "previousAppVersionName")
    return (AppVersionUpdated(stamp, (checked_endpoint_id(record["endpointId"]),), version, previous),)


def _version(record: Record) -> str:
    # There are few versions, but one in every endpoint: interning saves memory.
    return intern(checked_text(record["appVersionName"], "appVersionName"))


def _metadata_updated(record: Record, stamp: Stamp) -> Sequence[Event]:
    # A key that one event both removes and adds or updates is present afterwards.
    present = {checked_text(key, "metadata key"): None for key in (*record["added"], *record["updated"])}
    removed = tuple(dict.fromkeys(checked_text(key, "metadata key") for key in record["removed"] if key not in present))
    return (MetadataUpdated(stamp, (checked_endpoint_id(record["endpointId"]),), present, removed),)


def _new_config_available(record: Record, stamp: Stamp) -> Sequence[Event]:
    endpoint_id = checked_endpoint_id(record["endpointId"])
    return (ConfigAvailable(stamp, (endpoint_id,), checked_text(record["configId"], "configId")),)


def _config_updated(record: Record, stamp: Stamp) -> Sequence[Event]:
    # In this revision "updated" means that the endpoint confirmed the configuration.
    endpoint_id = checked_endpoint_id(record["endpointId"])
    return (ConfigApplied(stamp, (endpoint_id,), checked_text(record["configId"], "configId")),)


REVISION = Revision(
    name="kaa-2017-04",
    event_types={
        "connectivity.connected": EventType(schema="connected", translate=_connected, kinds=(Connected,)),
        "connectivity.disconnected": EventType(schema="disconnected", translate=_disconnected, kinds=(Disconnected,)),
        "lifecycle.registered": EventType(schema="registered", translate=_registered, kinds=(Registered,)),
        "lifecycle.appversion-updated": EventType(
            schema="app-version-updated", translate=_app_version_updated, kinds=(AppVersionUpdated,)
        ),
        "metadata.updated": EventType(schema="metadata-updated", translate=_metadata_updated, kinds=(MetadataUpdated,)),
        "config.new-available": EventType(
            schema="new-config-available", translate=_new_config_available, kinds=(ConfigAvailable,)
        ),
        "config.updated": EventType(schema="config-updated", translate=_config_updated, kinds=(ConfigApplied,)),
    },
)
