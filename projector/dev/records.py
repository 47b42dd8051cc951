"""Converts the facts of a simulated fleet to wire records, for each protocol revision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from projector.dev.lives import Fact, Kind, Lives, TodaysLives

Record: TypeAlias = dict[str, Any]
OwnFields: TypeAlias = Callable[[Fact, list[str]], Record]
"""Converts a fact and the ids of its endpoints to the fields specific to its record type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRecords:
    """The simulation of a fleet in one revision, and its records."""

    lives: Callable[[int, Random], Lives]
    types: Mapping[Kind, tuple[str, OwnFields]]
    """By kind of fact, the event type and the fields of its record."""
    nullable_replica: frozenset[str]
    """Event types that encode an unknown replica as null, not as an empty text."""


def _one(fact: Fact, ids: list[str]) -> Record:
    return {"endpointId": ids[0], "appVersionName": fact.versions[0]}


def _id_list(fact: Fact, ids: list[str]) -> Record:
    del fact
    return {"endpointIds": ids}


def _version_by_id(fact: Fact, ids: list[str]) -> Record:
    return {"endpoints": dict(zip(ids, fact.versions, strict=True))}


def _version_updated(fact: Fact, ids: list[str]) -> Record:
    return _one(fact, ids) | {"previousAppVersionName": fact.fields["previous"]}


def _metadata_keys(fact: Fact, ids: list[str]) -> Record:
    return _one(fact, ids) | fact.fields


def _metadata_values(fact: Fact, ids: list[str]) -> Record:
    values = fact.fields["values"]
    return _one(fact, ids) | {
        "removed": dict.fromkeys(fact.fields["removed"]),
        "added": {key: values[key] for key in fact.fields["added"]},
        "updated": {key: {"newValue": values[key], "oldValue": None} for key in fact.fields["updated"]},
    }


def _config(fact: Fact, ids: list[str]) -> Record:
    return _one(fact, ids) | {"configId": fact.fields["config_id"]}


def _config_content(fact: Fact, ids: list[str]) -> Record:
    return _config(fact, ids) | {"content": b'{"interval_s": 60}' if fact.fields["config_id"] else b""}


def _config_failed(fact: Fact, ids: list[str]) -> Record:
    return _config(fact, ids) | {"statusCode": fact.fields["code"], "reasonPhrase": fact.fields["reason"]}


RECORDS: Mapping[str, RevisionRecords] = {
    "kaa-2017-04": RevisionRecords(
        lives=Lives,
        types={
            "registered": ("lifecycle.registered", _one),
            "version-updated": ("lifecycle.appversion-updated", _version_updated),
            "connected": ("connectivity.connected", _one),
            "disconnected": ("connectivity.disconnected", _id_list),
            "metadata-updated": ("metadata.updated", _metadata_keys),
            "config-announced": ("config.new-available", _config),
            "config-applied": ("config.updated", _config),
        },
        nullable_replica=frozenset(
            {
                "lifecycle.registered",
                "lifecycle.appversion-updated",
                "metadata.updated",
                "config.new-available",
                "config.updated",
            }
        ),
    ),
    "kaa-2020-05": RevisionRecords(
        lives=TodaysLives,
        types={
            "registered": ("lifecycle.registered", _one),
            "unregistered": ("lifecycle.unregistered", _one),
            "version-updated": ("lifecycle.appversion-updated", _version_updated),
            "connected": ("connectivity.connected", _version_by_id),
            "disconnected": ("connectivity.disconnected", _version_by_id),
            "metadata-updated": ("metadata.updated", _metadata_values),
            "config-announced": ("config.updated", _config_content),
            "config-applied": ("config.applied", _config),
            "config-failed": ("config.applied", _config_failed),
        },
        nullable_replica=frozenset({"config.updated", "config.applied"}),
    ),
}
"""By name of the revision."""
