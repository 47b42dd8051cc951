"""What an event says about its endpoints, as columns; for upserts."""

from typing import Any

from benchmarks.peers.messages import Received

GUARDS = {
    "connectivity.connected": "connectivity_changed_at",
    "connectivity.disconnected": "connectivity_changed_at",
    "lifecycle.registered": "registered_at",
    "lifecycle.appversion-updated": "app_version_changed_at",
    "metadata.updated": "metadata_changed_at",
    "config.new-available": "config_available_at",
    "config.updated": "config_applied_at",
}
"""The column whose time decides whether an event of a type is news."""


def columns_of(event: Received) -> dict[str, Any]:
    """Return the row as it would be if the event were the first; a type always has the same columns."""
    record, at = event.record, event.at
    match event.type:
        case "connectivity.connected":
            own = {
                "connectivity_status": "connected",
                "connectivity_changed_at": at,
                "connected_at": at,
                "connected_originator": event.originator,
                "connected_replica": record["originatorReplicaId"] or None,
                "app_version": record["appVersionName"] or None,
                "app_version_changed_at": at,
            }
        case "connectivity.disconnected":
            own = {"connectivity_status": "disconnected", "connectivity_changed_at": at, "disconnected_at": at}
        case "lifecycle.registered":
            own = {"registered_at": at, "app_version": record["appVersionName"], "app_version_changed_at": at}
        case "lifecycle.appversion-updated":
            own = {
                "app_version": record["appVersionName"],
                "app_version_changed_at": at,
                "previous_app_version": record["previousAppVersionName"] or None,
            }
        case "metadata.updated":
            own = {"metadata": dict.fromkeys(record["added"] + record["updated"]), "metadata_changed_at": at}
        case "config.new-available":
            config_id = record["configId"]
            own = {
                "config_status": "pending",
                "config_available_id": config_id,
                "config_available_at": at,
                "config_pending_id": config_id,
            }
        case "config.updated":
            own = {"config_status": "applied", "config_applied_id": record["configId"], "config_applied_at": at}
        case _:
            raise ValueError(event.type)
    return {**own, "last_event_seq": event.seq, "last_event_at": at}
