"""Features of this revision only: maps of endpoints, metadata with values, and configurations that fail."""

from typing import Any

import pytest

from projector.domain.events import ConfigApplied, ConfigFailed, Connected, Disconnected, MetadataUpdated
from tests.support.wire_samples import STAMP, Kind

CONNECTED = Kind("kaa-2020-05", "connectivity.connected")
DISCONNECTED = Kind("kaa-2020-05", "connectivity.disconnected")
METADATA = Kind("kaa-2020-05", "metadata.updated")
CONFIG_UPDATED = Kind("kaa-2020-05", "config.updated")
CONFIG_APPLIED = Kind("kaa-2020-05", "config.applied")


# Several endpoints in one message.


def test_endpoints_are_grouped_into_one_event_per_version() -> None:
    endpoints = {f"e{number}": f"v{number % 3}" for number in range(9)}
    assert CONNECTED.decode(endpoints=endpoints) == tuple(
        Connected(STAMP, tuple(f"e{number}" for number in range(version, 9, 3)), f"v{version}") for version in range(3)
    )


def test_endpoint_without_a_version_is_connected() -> None:
    assert CONNECTED.decode(endpoints={"e": ""}) == (Connected(STAMP, ("e",), ""),)


@pytest.mark.parametrize("kind", [CONNECTED, DISCONNECTED], ids=str)
def test_empty_map_of_endpoints_is_no_event(kind: Kind) -> None:
    assert kind.decode(endpoints={}) == ()


def test_repeated_endpoint_id_counts_once_with_its_last_version() -> None:
    payload = CONNECTED.payload(endpoints={"e1": "v1", "e2": "v2"})
    plain = b"\x04\x04e1\x04v1\x04e2\x04v2\x00"
    twice = b"\x04\x04e1\x04v1\x04e1\x04v2\x00"
    assert payload.count(plain) == 1
    assert CONNECTED.codec.decode(CONNECTED.message(payload.replace(plain, twice))) == (
        Connected(STAMP, ("e1",), "v2"),
    )


def test_versions_in_a_disconnect_are_ignored() -> None:
    assert DISCONNECTED.decode(endpoints={"e": "a\0b"}) == (Disconnected(STAMP, ("e",)),)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_version_that_postgres_cannot_hold_parks_the_message_for_all_of_its_endpoints(place: int) -> None:
    versions = ["v1", "v2"]
    versions.insert(place, "v\0")
    endpoints = {f"e{number}": version for number, version in enumerate(versions)}
    assert CONNECTED.parked(endpoints=endpoints) == "unstorable-text"


# Metadata.


def change(new: str | None, old: str | None = None) -> dict[str, str | None]:
    return {"newValue": new, "oldValue": old}


@pytest.mark.parametrize(
    ("changes", "present", "removed"),
    [
        pytest.param({"removed": {"a": "1"}, "added": {"a": "2"}}, {"a": "2"}, (), id="removed-and-added"),
        pytest.param({"removed": {"a": "1"}, "updated": {"a": change("2")}}, {"a": "2"}, (), id="removed-and-updated"),
        pytest.param({"added": {"a": "2"}, "updated": {"a": change("3")}}, {"a": "2"}, (), id="added-and-updated"),
        pytest.param({"removed": {"a": None, "b": "x\0"}}, {}, ("a", "b"), id="removed"),
        pytest.param({}, {}, (), id="no-key-at-all"),
        pytest.param(
            {"added": {"": "1"}, "updated": {"ключ": change(None)}}, {"": "1", "ключ": None}, (), id="any-key"
        ),
        pytest.param({"updated": {"a": change("1", "x\0")}}, {"a": "1"}, (), id="old-values-are-not-kept"),
        pytest.param(
            {"added": {"a": "1"}, "updated": {"a": change("x\0")}}, {"a": "1"}, (), id="nor-one-that-does-not-count"
        ),
    ],
)
def test_added_value_of_a_repeated_key_wins_over_the_updated_one(
    changes: dict[str, Any], present: dict[str, str | None], removed: tuple[str, ...]
) -> None:
    wire = {"removed": {}, "added": {}, "updated": {}, **changes}
    assert METADATA.decode_one(**wire) == MetadataUpdated(STAMP, ("e",), present, removed)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"removed": {"a\0b": None}}, id="removed-key"),
        pytest.param({"added": {"a\0b": None}}, id="added-key"),
        pytest.param({"updated": {"a\0b": change(None)}}, id="updated-key"),
        pytest.param({"added": {"a": "x\0"}}, id="added-value"),
        pytest.param({"updated": {"a": change('["\\ud800"]')}}, id="updated-value"),
    ],
)
def test_a_key_or_value_that_postgres_cannot_hold_is_parked(changes: dict[str, Any]) -> None:
    wire = {"removed": {}, "added": {}, "updated": {}, **changes}
    assert METADATA.parked(**wire) == "unstorable-text"


# Configurations.


def test_the_content_of_a_configuration_is_not_kept() -> None:
    assert CONFIG_UPDATED.decode(content=b"secret") == CONFIG_UPDATED.events


@pytest.mark.parametrize("code", [200, 204, 299])
def test_any_2xx_status_confirms_the_configuration(code: int) -> None:
    assert CONFIG_APPLIED.decode_one(statusCode=code, reasonPhrase="a\0b") == ConfigApplied(STAMP, ("e",), "c1")


@pytest.mark.parametrize("code", [199, 300, 404, 500, 0, -200, 2**31 - 1, -(2**31)])
def test_any_other_status_is_a_failure(code: int) -> None:
    expected = ConfigFailed(STAMP, ("e",), "c1", code, None)
    assert CONFIG_APPLIED.decode_one(statusCode=code, reasonPhrase=None) == expected


def test_missing_status_is_success() -> None:
    record = {
        name: value for name, value in CONFIG_APPLIED.record().items() if name not in ("statusCode", "reasonPhrase")
    }
    payload = CONFIG_APPLIED.codec.encode(CONFIG_APPLIED.type, record)
    assert CONFIG_APPLIED.codec.decode(CONFIG_APPLIED.message(payload)) == (ConfigApplied(STAMP, ("e",), "c1"),)
