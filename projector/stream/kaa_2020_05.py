"""Revision kaa-2020-05 (9/ELCE, 15/EME, 6/CDTP), translated into the domain's own events."""

from collections.abc import Sequence
from sys import intern

from projector.domain.events import (
    AppVersionUpdated,
    ConfigApplied,
    ConfigAvailable,
    ConfigFailed,
    Connected,
    Disconnected,
    Event,
    MetadataUpdated,
    Registered,
    Unregistered,
)
from projector.domain.stamps import Stamp
from projector.stream.json_values import checked_json
from projector.stream.limits import checked_endpoint_id, checked_text
from projector.stream.revisions import EventType, Record, Revision

_SUCCESS = range(200, 300)


def _connected(record: Record, stamp: Stamp) -> Sequence[Event]:
    # One event for each version, since all endpoints of an event share its values.
    by_version: dict[str, list[str]] = {}
    for endpoint_id, version in record["endpoints"].items():
        by_version.setdefault(version, []).append(checked_endpoint_id(endpoint_id))
    return tuple(
        Connected(stamp, tuple(endpoint_ids), _checked_version(version)) for version, endpoint_ids in by_version.items()
    )


def _disconnected(record: Record, stamp: Stamp) -> Sequence[Event]:
    endpoint_ids = tuple(map(checked_endpoint_id, record["endpoints"]))
    return (Disconnected(stamp, endpoint_ids),) if endpoint_ids else ()


def _registered(record: Record, stamp: Stamp) -> Sequence[Event]:
    return (Registered(stamp, _endpoint(record), _checked_version(record["appVersionName"])),)


def _unregistered(record: Record, stamp: Stamp) -> Sequence[Event]:
    return (Unregistered(stamp, _endpoint(record)),)


def _app_version_updated(record: Record, stamp: Stamp) -> Sequence[Event]:
    version = _checked_version(record["appVersionName"])
    previous = checked_text(record["previousAppVersionName"], "previousAppVersionName")
    return (AppVersionUpdated(stamp, _endpoint(record), version, previous),)


def _metadata_updated(record: Record, stamp: Stamp) -> Sequence[Event]:
    # A key that one event both removes and adds or updates is present afterwards; of two values the added one wins.
    values = {key: change["newValue"] for key, change in record["updated"].items()} | record["added"]
    present = {_checked_key(key): checked_json(key, value) for key, value in values.items()}
    removed = tuple(_checked_key(key) for key in record["removed"] if key not in present)
    return (MetadataUpdated(stamp, _endpoint(record), present, removed),)


def _config_updated(record: Record, stamp: Stamp) -> Sequence[Event]:
    # In this revision "updated" announces a configuration. Its content may hold secrets, so it stays in the stream.
    return (ConfigAvailable(stamp, _endpoint(record), checked_text(record["configId"], "configId")),)


def _config_applied(record: Record, stamp: Stamp) -> Sequence[Event]:
    config_id, code, reason = checked_text(record["configId"], "configId"), record["statusCode"], record["reasonPhrase"]
    if code in _SUCCESS:
        return (ConfigApplied(stamp, _endpoint(record), config_id),)
    if reason is not None:
        checked_text(reason, "reasonPhrase")
    return (ConfigFailed(stamp, _endpoint(record), config_id, code, reason),)


def _endpoint(record: Record) -> tuple[str]:
    return (checked_endpoint_id(record["endpointId"]),)


def _checked_version(version: str) -> str:
    # There are few versions, but one in every endpoint: interning saves memory.
    return intern(checked_text(version, "appVersionName"))


def _checked_key(key: str) -> str:
    return checked_text(key, "metadata key")


REVISION = Revision(
    name="kaa-2020-05",
    event_types={
        "connectivity.connected": EventType(schema="connected", translate=_connected, kinds=(Connected,)),
        "connectivity.disconnected": EventType(schema="disconnected", translate=_disconnected, kinds=(Disconnected,)),
        "lifecycle.registered": EventType(schema="registered", translate=_registered, kinds=(Registered,)),
        "lifecycle.unregistered": EventType(schema="unregistered", translate=_unregistered, kinds=(Unregistered,)),
        "lifecycle.appversion-updated": EventType(
            schema="app-version-updated", translate=_app_version_updated, kinds=(AppVersionUpdated,)
        ),
        "metadata.updated": EventType(schema="metadata-updated", translate=_metadata_updated, kinds=(MetadataUpdated,)),
        "config.updated": EventType(schema="config-updated", translate=_config_updated, kinds=(ConfigAvailable,)),
        "config.applied": EventType(
            schema="config-applied", translate=_config_applied, kinds=(ConfigApplied, ConfigFailed)
        ),
    },
)
