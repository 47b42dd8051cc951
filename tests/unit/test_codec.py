from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from fastavro.schema import load_schema
from hypothesis import given, settings
from hypothesis import strategies as st

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
from projector.domain.messages import Message, Origin, Skipped
from projector.domain.stamps import Stamp
from projector.errors import PoisonError, PoisonReason, SettingError
from projector.stream import subjects
from projector.stream.codec import Codec

SCHEMAS = Path(__file__).parents[2] / "schemas"
CODEC = Codec("kaa-2017-04", SCHEMAS)

POSITION, SENT_AT, STORED_AT = 7, 1_700_000_000_000, 1_700_000_000_500
STAMP = Stamp(POSITION, SENT_AT, "kpc", "x")
HEADER = {"correlationId": "trace", "timestamp": SENT_AT, "timeout": -1}

# By type: its own fields on the wire, and the event that they state.
SAMPLES: dict[str, tuple[dict[str, Any], Event]] = {
    "connectivity.connected": (
        {"endpointId": "e", "appVersionName": "v1"},
        Connected(STAMP, ("e",), "v1"),
    ),
    "connectivity.disconnected": (
        {"endpointIds": ["e2", "e1"]},
        Disconnected(STAMP, ("e2", "e1")),
    ),
    "lifecycle.registered": (
        {"endpointId": "e", "appVersionName": "v1"},
        Registered(STAMP, ("e",), "v1"),
    ),
    "lifecycle.appversion-updated": (
        {"endpointId": "e", "appVersionName": "v2", "previousAppVersionName": "v1"},
        AppVersionUpdated(STAMP, ("e",), "v2", "v1"),
    ),
    "metadata.updated": (
        {"endpointId": "e", "appVersionName": "v1", "removed": ["fw"], "added": ["site"], "updated": ["serial"]},
        MetadataUpdated(STAMP, ("e",), {"site": None, "serial": None}, ("fw",)),
    ),
    "config.new-available": (
        {"endpointId": "e", "appVersionName": "v1", "configId": "c1"},
        ConfigAvailable(STAMP, ("e",), "c1"),
    ),
    "config.updated": (
        {"endpointId": "e", "appVersionName": "v1", "configId": "c1"},
        ConfigApplied(STAMP, ("e",), "c1"),
    ),
}
each_type = pytest.mark.parametrize("event_type", SAMPLES)


def record(event_type: str, **changes: Any) -> dict[str, Any]:
    own, _ = SAMPLES[event_type]
    return {**HEADER, **own, "originatorReplicaId": "x", **changes}


def message(event_type: str, payload: bytes, originator: str = "kpc") -> Message:
    return Message(POSITION, STORED_AT, subjects.build(originator, event_type), payload)


def decode(event_type: str, **changes: Any) -> Sequence[Event] | Skipped:
    return CODEC.decode(message(event_type, CODEC.encode(event_type, record(event_type, **changes))))


def decode_one(event_type: str, **changes: Any) -> Event:
    events = decode(event_type, **changes)
    assert not isinstance(events, Skipped)
    (event,) = events
    return event


def parked(event_type: str, **changes: Any) -> PoisonReason:
    with pytest.raises(PoisonError) as caught:
        decode(event_type, **changes)
    return caught.value.reason


# What a message says.


@each_type
def test_a_message_states_the_event_of_its_type_with_its_position_time_and_origin(event_type: str) -> None:
    _, event = SAMPLES[event_type]
    assert decode_one(event_type) == event


@each_type
@pytest.mark.parametrize("timestamp", [0, -1, -(2**63), STORED_AT + 1, 2**63 - 1])
def test_a_timestamp_that_says_nothing_or_lies_ahead_gives_way_to_the_stored_time(
    event_type: str, timestamp: int
) -> None:
    assert decode_one(event_type, timestamp=timestamp).stamp == STAMP._replace(occurred_at=STORED_AT)


@each_type
def test_an_empty_replica_is_unknown(event_type: str) -> None:
    assert decode_one(event_type, originatorReplicaId="").stamp == STAMP._replace(replica=None)


@pytest.mark.parametrize("event_type", [name for name in SAMPLES if not name.startswith("connectivity.")])
def test_a_null_replica_is_unknown(event_type: str) -> None:
    assert decode_one(event_type, originatorReplicaId=None).stamp == STAMP._replace(replica=None)


@each_type
def test_an_event_does_not_expire(event_type: str) -> None:
    assert decode_one(event_type, timeout=1) == decode_one(event_type)


def test_messages_that_share_a_correlation_id_are_different_events() -> None:
    payload = CODEC.encode("config.updated", record("config.updated"))
    first = message("config.updated", payload)
    assert CODEC.decode(first) != CODEC.decode(first._replace(position=POSITION + 1))


def test_repeated_endpoint_ids_count_once_in_the_order_of_the_message() -> None:
    event = decode_one("connectivity.disconnected", endpointIds=["e2", "e1", "e2"])
    assert event == Disconnected(STAMP, ("e2", "e1"))


def test_an_empty_list_of_endpoints_states_no_event() -> None:
    assert decode("connectivity.disconnected", endpointIds=[]) == ()


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
    assert decode_one("metadata.updated", **changes) == expected


def test_a_list_written_in_blocks_with_their_sizes_is_read_as_one() -> None:
    payload = CODEC.encode("connectivity.disconnected", record("connectivity.disconnected"))
    plain = b"\x04\x04e2\x04e1\x00"  # one block of two
    sized = b"\x01\x06\x04e2\x01\x06\x04e1\x00"  # two blocks of one, the size of each ahead of it
    assert payload.count(plain) == 1
    in_blocks = message("connectivity.disconnected", payload.replace(plain, sized))
    assert CODEC.decode(in_blocks) == (Disconnected(STAMP, ("e2", "e1")),)


# What is parked.


@each_type
def test_a_payload_cut_off_anywhere_is_malformed(event_type: str) -> None:
    payload = CODEC.encode(event_type, record(event_type))
    for size in range(len(payload)):
        with pytest.raises(PoisonError) as caught:
            CODEC.decode(message(event_type, payload[:size]))
        assert caught.value.reason == "malformed-payload"
        assert caught.value.detail.startswith(f"{size} bytes do not decode as {event_type}, stopped at byte ")


@each_type
@pytest.mark.parametrize(
    "payload",
    [b"\xff" * 64, b"\x02\xff" + bytes(64), b"\x06\xed\xa0\x80" + bytes(64)],
    ids=["no-avro", "no-utf-8", "half-a-surrogate-pair"],
)
def test_a_payload_that_does_not_decode_is_malformed(event_type: str, payload: bytes) -> None:
    with pytest.raises(PoisonError) as caught:
        CODEC.decode(message(event_type, payload))
    assert caught.value.reason == "malformed-payload"


@each_type
def test_a_payload_with_bytes_left_over_is_parked_and_says_how_many(event_type: str) -> None:
    payload = CODEC.encode(event_type, record(event_type))
    with pytest.raises(PoisonError, match=f"3 of {len(payload) + 3} bytes are left over") as caught:
        CODEC.decode(message(event_type, payload + bytes(3)))
    assert caught.value.reason == "trailing-bytes"


@pytest.mark.parametrize("event_type", [name for name in SAMPLES if name != "connectivity.disconnected"])
def test_an_empty_endpoint_id_is_parked(event_type: str) -> None:
    assert parked(event_type, endpointId="") == "empty-endpoint-id"


@pytest.mark.parametrize("bad", ["", "\0", "e" * 2693], ids=["empty", "nul", "too-long"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_id_in_a_list_parks_the_message_for_all_of_its_endpoints(bad: str, place: int) -> None:
    ids = ["e1", "e2"]
    ids.insert(place, bad)
    assert parked("connectivity.disconnected", endpointIds=ids) in {
        "empty-endpoint-id",
        "unstorable-text",
        "endpoint-id-too-long",
    }


@pytest.mark.parametrize("event_type", ["config.new-available", "config.updated"])
def test_an_empty_config_id_is_folded_like_any_other(event_type: str) -> None:
    event = decode_one(event_type, configId="")
    assert isinstance(event, ConfigAvailable | ConfigApplied)
    assert event.config_id == ""


@pytest.mark.parametrize(
    "longest",
    ["e" * 2692, "é" * 1346, "€" * 897 + "e", "😀" * 673],
    ids=["1-byte", "2-byte", "3-byte", "4-byte"],
)
@pytest.mark.parametrize("field", ["endpointId", "endpointIds"])
def test_an_endpoint_id_may_take_2692_bytes_and_not_one_more(longest: str, field: str) -> None:
    event_type = "connectivity.connected" if field == "endpointId" else "connectivity.disconnected"

    def wire(endpoint_id: str) -> dict[str, Any]:
        return {field: endpoint_id if field == "endpointId" else [endpoint_id]}

    assert len(longest.encode()) == 2692
    assert decode_one(event_type, **wire(longest)).endpoint_ids == (longest,)
    assert parked(event_type, **wire(longest + "e")) == "endpoint-id-too-long"


NOT_STORED = {
    *((event_type, "correlationId") for event_type in SAMPLES),
    ("metadata.updated", "appVersionName"),
    ("config.new-available", "appVersionName"),
    ("config.updated", "appVersionName"),
}
TEXTS = [
    (event_type, field)
    for event_type in SAMPLES
    for field, value in record(event_type).items()
    if isinstance(value, str | list)
]


def with_nul(event_type: str, field: str) -> dict[str, Any]:
    return {field: ["ok", "a\0b"] if isinstance(record(event_type)[field], list) else "a\0b"}


@pytest.mark.parametrize(("event_type", "field"), [text for text in TEXTS if text not in NOT_STORED])
def test_a_nul_in_a_text_that_is_stored_is_parked_and_the_text_is_named(event_type: str, field: str) -> None:
    lists = {"endpointIds": "endpointId", **dict.fromkeys(("removed", "added", "updated"), "metadata key")}
    with pytest.raises(PoisonError, match=f"^unstorable-text: {lists.get(field, field)} has a NUL character"):
        decode(event_type, **with_nul(event_type, field))


@pytest.mark.parametrize(("event_type", "field"), sorted(NOT_STORED))
def test_a_nul_in_a_text_that_is_not_stored_is_harmless(event_type: str, field: str) -> None:
    assert decode_one(event_type, **with_nul(event_type, field)) == decode_one(event_type)


bad_originators = pytest.mark.parametrize("originator", ["k\0pc", "k\udcffpc"], ids=["nul", "not-utf-8"])


@bad_originators
def test_an_originator_that_postgres_cannot_hold_is_parked_each_time_it_comes(originator: str) -> None:
    bad = message("config.updated", CODEC.encode("config.updated", record("config.updated")), originator)
    for _ in range(2):
        with pytest.raises(PoisonError, match="originator") as caught:
            CODEC.decode(bad)
        assert caught.value.reason == "unstorable-text"


# What is skipped.


@pytest.mark.parametrize(
    "event_type",
    [
        "lifecycle.unregistered",
        "config.applied",
        "connectivity.Connected",
        "connectivity",
        "connectivity.connected.again",
        "a.b.c.d",
    ],
)
def test_an_unknown_type_is_skipped_by_its_name_without_a_look_at_its_payload(event_type: str) -> None:
    assert CODEC.decode(message(event_type, b"anything")) == Skipped(event_type)


@pytest.mark.parametrize(
    "subject", ["", "kaa.v1.events.kpc.service.config.updated", "kaa.v2.events.kpc.endpoint.config.updated"]
)
def test_a_foreign_subject_is_skipped(subject: str) -> None:
    assert CODEC.decode(Message(POSITION, STORED_AT, subject, b"anything")) == Skipped("(foreign subject)")


@pytest.mark.parametrize("subject", ["kaa.v1.events.kpc.endpoint", "kaa.v1.events.kpc.endpoint."])
def test_a_subject_that_ends_at_the_type_is_skipped(subject: str) -> None:
    assert CODEC.decode(Message(POSITION, STORED_AT, subject, b"anything")) == Skipped("(no type)")


def test_a_type_that_cannot_be_printed_is_skipped_under_its_escapes() -> None:
    assert CODEC.decode(message("config.\n\udcff", b"anything")) == Skipped("config.\\n\\udcff")


# Where a message says it came from, before its clock is mistrusted.


def test_the_origin_of_a_message_has_the_timestamp_of_its_replica_although_it_lies_ahead_or_says_nothing() -> None:
    for timestamp in (STORED_AT + 1, -1):
        payload = CODEC.encode("config.updated", record("config.updated", timestamp=timestamp))
        assert CODEC.origin(message("config.updated", payload, "epr")) == Origin("epr", "x", timestamp)


@pytest.mark.parametrize("replica", ["", None])
def test_the_origin_of_a_message_without_a_replica_id_is_of_an_unknown_replica(replica: str | None) -> None:
    payload = CODEC.encode("config.updated", record("config.updated", originatorReplicaId=replica))
    assert CODEC.origin(message("config.updated", payload)) == Origin("kpc", None, SENT_AT)


def test_a_message_that_cannot_be_read_has_no_origin() -> None:
    payload = CODEC.encode("config.updated", record("config.updated"))
    for unreadable in (
        message("config.updated", payload[:-1]),
        message("config.updated", payload + bytes(1)),
        message("config.updated", payload, "k\udcffpc"),
        message("config.applied", payload),
        Message(POSITION, STORED_AT, "foreign", payload),
    ):
        assert CODEC.origin(unreadable) is None


# Both ways, and whatever comes.


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Return any value of the types that the schemas use."""
    if schema == ["null", "string"]:
        return st.none() | values("string")
    if isinstance(schema, Mapping):
        return st.lists(values(schema["items"]), max_size=3)
    return {"string": st.text(max_size=8), "long": st.integers(-(2**63), 2**63 - 1)}[schema]


def records(event_type: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return any record of this type."""
    schema: Any = load_schema(str(SCHEMAS / "kaa-2017-04" / f"{CODEC.revision.event_types[event_type].schema}.avsc"))
    return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in schema["fields"]})


def payloads(event_type: str) -> st.SearchStrategy[bytes]:
    return records(event_type).map(lambda written: CODEC.encode(event_type, written))


@st.composite
def damaged(draw: st.DrawFn, event_type: str) -> bytes:
    """Return a payload in which a few stretches were replaced by others."""
    payload = draw(payloads(event_type))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(payload)))
        end = start + draw(st.integers(0, 3))
        payload = payload[:start] + draw(st.binary(max_size=3)) + payload[end:]
    return payload


def explained(of: Message) -> dict[str, Any]:
    return CODEC.explain(of.subject, of.payload)


@each_type
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_record_reads_as_it_was_written(event_type: str, data: st.DataObject) -> None:
    written = data.draw(records(event_type))
    assert explained(message(event_type, CODEC.encode(event_type, written))) == written


def outcome(of: Message) -> Sequence[Event] | Skipped | PoisonError:
    try:
        return CODEC.decode(of)
    except PoisonError as error:
        return error


def texts(value: Any) -> list[str]:
    """Return every text of an event that a row will hold."""
    if isinstance(value, str):
        return [value]
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return [text for part in parts for text in texts(part)]


def storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


@each_type
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_are_events_that_a_row_can_hold_or_parked_for_a_reason_that_one_can(
    event_type: str, data: st.DataObject
) -> None:
    result = outcome(
        message(event_type, data.draw(st.binary(max_size=64) | payloads(event_type) | damaged(event_type)))
    )
    assert not isinstance(result, Skipped)
    if isinstance(result, PoisonError):
        assert result.reason in get_args(PoisonReason)
        assert result.detail.isprintable()
        return
    for event in result:
        assert all(map(storable, texts(event)))
        assert all(0 < len(endpoint_id.encode()) <= 2692 for endpoint_id in event.endpoint_ids)
        assert 0 < len(set(event.endpoint_ids)) == len(event.endpoint_ids)
        assert 0 < event.stamp.occurred_at <= STORED_AT


any_text = st.text(st.characters(exclude_categories=()))


@settings(deadline=None)
@given(
    any_text | st.builds(subjects.build, any_text, any_text | st.sampled_from(sorted(SAMPLES))), st.binary(max_size=32)
)
def test_any_subject_is_events_or_skipped_or_parked(subject: str, payload: bytes) -> None:
    result = outcome(Message(POSITION, STORED_AT, subject, payload))
    assert not isinstance(result, PoisonError) or result.detail.isprintable()


def test_what_a_record_leaves_out_takes_its_default() -> None:
    own, _ = SAMPLES["lifecycle.appversion-updated"]
    defaults = {"correlationId": "", "timestamp": -1, "timeout": -1, "originatorReplicaId": None}
    payload = CODEC.encode("lifecycle.appversion-updated", own)
    assert explained(message("lifecycle.appversion-updated", payload)) == {**defaults, **own}


# What a person is shown of a dead letter.


def test_a_message_that_decodes_and_cannot_be_folded_is_shown_all_the_same() -> None:
    empty = record("config.updated", endpointId="", configId="\0")
    assert explained(message("config.updated", CODEC.encode("config.updated", empty))) == empty


def test_of_a_message_that_breaks_off_the_fields_before_the_fault_are_shown() -> None:
    written = record("config.updated", correlationId="trace", endpointId="e")
    whole = CODEC.encode("config.updated", written)
    shown = explained(message("config.updated", whole[: whole.index(b"e", 10) + 1]))
    assert shown == {name: written[name] for name in ("correlationId", "timestamp", "timeout", "endpointId")}


def test_of_a_message_with_a_text_that_is_not_utf_8_nothing_is_shown_that_stands_behind_it() -> None:
    written = record("config.updated", endpointId="e?", configId="c1")
    payload = CODEC.encode("config.updated", written).replace(b"e?", b"e\xff")
    shown = explained(message("config.updated", payload))
    assert shown == {name: written[name] for name in ("correlationId", "timestamp", "timeout")}


def test_of_a_message_of_an_unknown_type_no_field_is_shown() -> None:
    assert explained(message("lifecycle.unregistered", b"\xff")) == {}


@bad_originators
def test_a_message_parked_for_its_originator_can_still_be_shown(originator: str) -> None:
    written = record("config.updated")
    assert explained(message("config.updated", CODEC.encode("config.updated", written), originator)) == written


# What is wrong before the first message.


def test_an_unknown_revision_names_the_setting_and_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"PROJECTOR_REVISION='kaa-2099-01'.*kaa-2017-04"):
        Codec("kaa-2099-01", SCHEMAS)


@pytest.mark.parametrize(
    "content",
    [None, "no json", '{"type": "unheard-of"}', '{"type": "record"}'],
    ids=["missing", "no-json", "unknown-type", "incomplete"],
)
def test_a_schema_that_cannot_be_read_names_its_file(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "kaa-2017-04").mkdir()
        for event_type in CODEC.revision.event_types.values():
            (tmp_path / "kaa-2017-04" / f"{event_type.schema}.avsc").write_text(content, encoding="utf-8")
    with pytest.raises(SettingError, match=r"connected\.avsc"):
        Codec("kaa-2017-04", tmp_path)
