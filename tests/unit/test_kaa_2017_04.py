"""Features of this revision only: lists of endpoint ids, and metadata keys without values."""

import pytest

from projector.domain.events import Disconnected, MetadataUpdated
from tests.support.wire_samples import STAMP, Kind

DISCONNECTED = Kind("kaa-2017-04", "connectivity.disconnected")
METADATA = Kind("kaa-2017-04", "metadata.updated")


def test_repeated_endpoint_ids_count_once_in_the_order_of_the_message() -> None:
    assert DISCONNECTED.decode_one(endpointIds=["e2", "e1", "e2"]) == Disconnected(STAMP, ("e2", "e1"))


def test_empty_list_of_endpoints_is_no_event() -> None:
    assert DISCONNECTED.decode(endpointIds=[]) == ()


def test_list_in_several_avro_blocks_is_read_as_one() -> None:
    payload = DISCONNECTED.payload()
    plain = b"\x04\x04e2\x04e1\x00"  # one block of two
    sized = b"\x01\x06\x04e2\x01\x06\x04e1\x00"  # two blocks of one, the size of each ahead of it
    assert payload.count(plain) == 1
    in_blocks = DISCONNECTED.message(payload.replace(plain, sized))
    assert DISCONNECTED.codec.decode(in_blocks) == DISCONNECTED.events


@pytest.mark.parametrize(
    ("changes", "present", "removed"),
    [
        pytest.param({"removed": ["a"], "added": ["a"], "updated": []}, ["a"], (), id="removed-and-added"),
        pytest.param({"removed": ["a"], "added": [], "updated": ["a"]}, ["a"], (), id="removed-and-updated"),
        pytest.param({"removed": ["a", "b", "a"], "added": ["c"], "updated": ["c"]}, ["c"], ("a", "b"), id="repeated"),
        pytest.param({"removed": [], "added": [], "updated": []}, [], (), id="no-key-at-all"),
        pytest.param({"removed": [], "added": [""], "updated": ["ключ"]}, ["", "ключ"], (), id="any-text-is-a-key"),
    ],
)
def test_a_metadata_key_that_is_both_removed_and_added_or_updated_is_present(
    changes: dict[str, list[str]], present: list[str], removed: tuple[str, ...]
) -> None:
    expected = MetadataUpdated(STAMP, ("e",), dict.fromkeys(present), removed)
    assert METADATA.decode_one(**changes) == expected
