"""What holds for every revision; `test_kaa_*` has what each means."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from fastavro.schema import load_schema
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.domain.events import ConfigApplied, ConfigAvailable, ConfigFailed, Event
from projector.domain.messages import Message, Origin, Skipped
from projector.errors import PoisonError, PoisonReason, SettingError
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.protocol import REVISIONS, event_names
from tests.support.wire_samples import (
    CODECS,
    KINDS,
    POSITION,
    SAMPLES,
    SCHEMAS,
    SENT_AT,
    STAMP,
    STORED_AT,
    Kind,
    each_kind,
)

each_revision = pytest.mark.parametrize("revision", REVISIONS)


def kinds(*fields: str, but: Sequence[str] = ()) -> pytest.MarkDecorator:
    """Return the types whose records have a field."""
    found = [kind for kind in KINDS if set(fields) & kind.record().keys() and kind.type not in but]
    return pytest.mark.parametrize("kind", found, ids=str)


def restamped(kind: Kind, **changes: Any) -> tuple[Event, ...]:
    return tuple(event._replace(stamp=STAMP._replace(**changes)) for event in kind.events)


# The events of a message.


def test_every_type_has_a_sample() -> None:
    assert {name: set(samples) for name, samples in SAMPLES.items()} == {
        name: set(revision.event_types) for name, revision in REVISIONS.items()
    }


def test_each_type_says_which_events_it_is_translated_into() -> None:
    for name, samples in SAMPLES.items():
        told = {event_type: set(one.kinds) for event_type, one in REVISIONS[name].event_types.items()}
        made = {event_type: {type(event) for event in events} for event_type, (_, events) in samples.items()}
        assert all(kinds <= told[event_type] for event_type, kinds in made.items())
        assert set(event_names(name)) == set().union(*told.values())
        assert sum(map(len, told.values())) == len(event_names(name))
    assert event_names("kaa-2038-01") == {}


@each_kind
def test_message_decodes_to_its_events_with_position_time_and_origin(kind: Kind) -> None:
    assert tuple(kind.decode()) == kind.events


@each_kind
@pytest.mark.parametrize("timestamp", [0, -1, -(2**63), STORED_AT + 1, 2**63 - 1])
def test_stored_time_replaces_a_zero_or_future_timestamp(kind: Kind, timestamp: int) -> None:
    assert tuple(kind.decode(timestamp=timestamp)) == restamped(kind, occurred_at=STORED_AT)


@each_kind
def test_an_empty_replica_is_unknown(kind: Kind) -> None:
    assert tuple(kind.decode(originatorReplicaId="")) == restamped(kind, replica=None)


NULLABLE_REPLICA = [
    kind
    for kind in KINDS
    if kind.type.startswith("config.") or (kind.revision == "kaa-2017-04" and not kind.type.startswith("connectivity."))
]


@pytest.mark.parametrize("kind", NULLABLE_REPLICA, ids=str)
def test_a_null_replica_is_unknown(kind: Kind) -> None:
    assert tuple(kind.decode(originatorReplicaId=None)) == restamped(kind, replica=None)


@each_kind
def test_an_event_does_not_expire(kind: Kind) -> None:
    assert tuple(kind.decode(timeout=1)) == kind.events


@each_kind
def test_messages_that_share_a_correlation_id_are_different_events(kind: Kind) -> None:
    first = kind.message(kind.payload())
    assert kind.codec.decode(first) != kind.codec.decode(first._replace(position=POSITION + 1))


@kinds("configId")
def test_an_empty_config_id_is_folded_like_any_other(kind: Kind) -> None:
    (event,) = kind.events
    assert isinstance(event, ConfigAvailable | ConfigApplied | ConfigFailed)
    assert kind.decode_one(configId="") == event._replace(config_id="")


# What is parked.


@each_kind
def test_a_payload_cut_off_anywhere_is_malformed(kind: Kind) -> None:
    payload = kind.payload()
    for size in range(len(payload)):
        with pytest.raises(PoisonError) as caught:
            kind.codec.decode(kind.message(payload[:size]))
        assert caught.value.reason == "malformed-payload"
        assert caught.value.detail.startswith(f"{size} bytes do not decode as {kind.type}, stopped at byte ")


@each_kind
@pytest.mark.parametrize(
    "payload",
    [b"\xff" * 64, b"\x02\xff" + bytes(64), b"\x06\xed\xa0\x80" + bytes(64)],
    ids=["no-avro", "no-utf-8", "half-a-surrogate-pair"],
)
def test_a_payload_that_does_not_decode_is_malformed(kind: Kind, payload: bytes) -> None:
    with pytest.raises(PoisonError) as caught:
        kind.codec.decode(kind.message(payload))
    assert caught.value.reason == "malformed-payload"


@each_kind
def test_payload_with_trailing_bytes_is_parked_with_their_number(kind: Kind) -> None:
    payload = kind.payload()
    with pytest.raises(PoisonError, match=f"3 of {len(payload) + 3} bytes are left over") as caught:
        kind.codec.decode(kind.message(payload + bytes(3)))
    assert caught.value.reason == "trailing-bytes"


@kinds("endpointId")
def test_an_empty_endpoint_id_is_parked(kind: Kind) -> None:
    assert kind.parked(endpointId="") == "empty-endpoint-id"


def among_others(kind: Kind, endpoint_id: str, place: int) -> dict[str, Any]:
    """Return the field of a record that names several endpoints, with this one among them."""
    ids = ["e1", "e2"]
    ids.insert(place, endpoint_id)
    return {"endpointIds": ids} if "endpointIds" in kind.record() else {"endpoints": dict.fromkeys(ids, "v")}


@kinds("endpointIds", "endpoints")
@pytest.mark.parametrize(
    ("bad", "reason"),
    [("", "empty-endpoint-id"), ("\0", "unstorable-text"), ("e" * 2693, "endpoint-id-too-long")],
    ids=["empty", "nul", "too-long"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_id_among_several_parks_the_message_for_all_of_its_endpoints(
    kind: Kind, bad: str, reason: PoisonReason, place: int
) -> None:
    assert kind.parked(**among_others(kind, bad, place)) == reason


@each_kind
@pytest.mark.parametrize(
    "longest",
    ["e" * 2692, "é" * 1346, "€" * 897 + "e", "😀" * 673],
    ids=["1-byte", "2-byte", "3-byte", "4-byte"],
)
def test_endpoint_id_is_limited_to_2692_bytes(kind: Kind, longest: str) -> None:
    def wire(endpoint_id: str) -> dict[str, Any]:
        return {"endpointId": endpoint_id} if "endpointId" in kind.record() else among_others(kind, endpoint_id, 0)

    assert len(longest.encode()) == 2692
    assert longest in kind.decode(**wire(longest))[0].endpoint_ids
    assert kind.parked(**wire(longest + "e")) == "endpoint-id-too-long"


NAMES_THE_VERSION = ("connectivity.connected", "lifecycle.registered", "lifecycle.appversion-updated")
TEXTS = [(kind, field) for kind in KINDS for field, value in kind.record().items() if isinstance(value, str | list)]


def stored(kind: Kind, field: str) -> bool:
    """Tell whether a row holds the text of a field."""
    if field == "appVersionName":
        return kind.type in NAMES_THE_VERSION
    return field not in ("correlationId", "contentType")


def with_nul(kind: Kind, field: str) -> dict[str, Any]:
    return {field: ["ok", "a\0b"] if isinstance(kind.record()[field], list) else "a\0b"}


@pytest.mark.parametrize(("kind", "field"), [text for text in TEXTS if stored(*text)], ids=str)
def test_a_nul_in_a_text_that_is_stored_is_parked_and_the_text_is_named(kind: Kind, field: str) -> None:
    lists = {"endpointIds": "endpointId", **dict.fromkeys(("removed", "added", "updated"), "metadata key")}
    with pytest.raises(PoisonError, match=f"^unstorable-text: {lists.get(field, field)} has a NUL character"):
        kind.decode(**with_nul(kind, field))


@pytest.mark.parametrize(("kind", "field"), [text for text in TEXTS if not stored(*text)], ids=str)
def test_a_nul_in_a_text_that_is_not_stored_is_harmless(kind: Kind, field: str) -> None:
    assert tuple(kind.decode(**with_nul(kind, field))) == kind.events


bad_originators = pytest.mark.parametrize("originator", ["k\0pc", "k\udcffpc"], ids=["nul", "not-utf-8"])


@bad_originators
@each_revision
def test_every_message_of_an_unstorable_originator_is_parked(revision: str, originator: str) -> None:
    kind = Kind(revision, "config.updated")
    for _ in range(2):
        with pytest.raises(PoisonError, match="originator") as caught:
            kind.codec.decode(kind.message(kind.payload(), originator))
        assert caught.value.reason == "unstorable-text"


# What another revision would have read.

OTHER = {"kaa-2017-04": "kaa-2020-05", "kaa-2020-05": "kaa-2017-04"}


def seen_as_other(kind: Kind) -> PoisonError | None:
    """Return why a message of another revision is parked; None where it happens to decode as one of this revision."""
    try:
        CODECS[OTHER[kind.revision]].decode(kind.message(kind.payload()))
    except PoisonError as error:
        return error
    return None


IN_BOTH = [kind for kind in KINDS if kind.type in SAMPLES[OTHER[kind.revision]]]


@pytest.mark.parametrize("kind", IN_BOTH, ids=str)
def test_a_message_of_another_revision_is_parked_with_a_detail_that_names_it(kind: Kind) -> None:
    error = seen_as_other(kind)
    assert error is not None
    assert error.reason in ("malformed-payload", "trailing-bytes")
    assert error.detail.endswith(f"; it reads as a message of revision {kind.revision}: see PROJECTOR_REVISION")


@each_kind
def test_a_message_that_no_revision_can_read_names_none(kind: Kind) -> None:
    with pytest.raises(PoisonError) as caught:
        kind.codec.decode(kind.message(b"\xff" * 64))
    assert "PROJECTOR_REVISION" not in caught.value.detail


def test_message_of_a_revision_without_schemas_is_parked(tmp_path: Path) -> None:
    (tmp_path / "kaa-2017-04").symlink_to(SCHEMAS / "kaa-2017-04")
    kind = Kind("kaa-2020-05", "connectivity.connected")
    with pytest.raises(PoisonError) as caught:
        Codec("kaa-2017-04", tmp_path).decode(kind.message(kind.payload()))
    assert "PROJECTOR_REVISION" not in caught.value.detail


@each_kind
def test_a_codec_reads_what_it_can_fold(kind: Kind) -> None:
    message = kind.message(kind.payload())
    assert kind.codec.reads(message)
    assert not kind.codec.reads(message._replace(payload=b""))
    assert not kind.codec.reads(message._replace(subject=subjects.build("kpc", "lifecycle.forgotten")))
    assert not kind.codec.reads(message._replace(subject=subjects.build("kpc", "traffic-reporting.payload")))


# What is skipped.


@each_revision
@pytest.mark.parametrize(
    "event_type",
    [
        "lifecycle.forgotten",
        "config.rolled-back",
        "connectivity.Connected",
        "connectivity.connected.again",
        "metadata.a.b.c.d",
    ],
)
def test_unknown_type_of_a_known_group_is_skipped_without_reading_its_payload(revision: str, event_type: str) -> None:
    assert CODECS[revision].decode(Kind(revision, event_type).message(b"anything")) == Skipped(event_type)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in IN_BOTH], ids=str)
def test_a_type_of_another_revision_is_unknown(kind: Kind) -> None:
    assert CODECS[OTHER[kind.revision]].decode(kind.message(kind.payload())) == Skipped(kind.type)


@each_revision
@pytest.mark.parametrize(
    "event_type",
    ["data-collection.data-points-received.temperature", "traffic-reporting.payload", "Config.updated", "config", ""],
)
def test_message_outside_the_filters_has_no_events_and_is_not_counted(revision: str, event_type: str) -> None:
    assert CODECS[revision].decode(Kind(revision, event_type).message(b"anything")) == ()


@each_revision
@pytest.mark.parametrize(
    "subject", ["", "kaa.v1.events.kpc.service.config.updated", "kaa.v2.events.kpc.endpoint.config.updated"]
)
def test_a_foreign_subject_is_skipped(revision: str, subject: str) -> None:
    assert CODECS[revision].decode(Message(POSITION, STORED_AT, subject, b"anything")) == Skipped("(foreign subject)")


@each_revision
@pytest.mark.parametrize("subject", ["kaa.v1.events.kpc.endpoint", "kaa.v1.events.kpc.endpoint."])
def test_subject_without_a_type_has_no_events(revision: str, subject: str) -> None:
    assert CODECS[revision].decode(Message(POSITION, STORED_AT, subject, b"anything")) == ()


@each_revision
def test_unprintable_type_is_skipped_under_its_escaped_name(revision: str) -> None:
    message = Kind(revision, "config.\n\udcff").message(b"anything")
    assert CODECS[revision].decode(message) == Skipped("config.\\n\\udcff")


# The origin that a message claims.


@each_kind
@pytest.mark.parametrize("timestamp", [STORED_AT + 1, -1])
def test_origin_has_the_uncorrected_timestamp(kind: Kind, timestamp: int) -> None:
    message = kind.message(kind.payload(timestamp=timestamp), "epr")
    assert kind.codec.origin(message) == Origin("epr", "x", timestamp)


@pytest.mark.parametrize("kind", NULLABLE_REPLICA, ids=str)
@pytest.mark.parametrize("replica", ["", None])
def test_origin_without_a_replica_id_has_an_unknown_replica(kind: Kind, replica: str | None) -> None:
    message = kind.message(kind.payload(originatorReplicaId=replica))
    assert kind.codec.origin(message) == Origin("kpc", None, SENT_AT)


@each_revision
def test_malformed_message_has_no_origin(revision: str) -> None:
    kind = Kind(revision, "config.updated")
    payload = kind.payload()
    for unreadable in (
        kind.message(payload[:-1]),
        kind.message(payload + bytes(1)),
        kind.message(payload, "k\udcffpc"),
        Kind(revision, "config.rolled-back").message(payload),
        Kind(revision, "data-collection.x").message(payload),
        Message(POSITION, STORED_AT, "foreign", payload),
    ):
        assert kind.codec.origin(unreadable) is None


# Both directions, and arbitrary input.


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Return any value of the types that the schemas use."""
    if isinstance(schema, list):
        return st.one_of([values(branch) for branch in schema])
    if isinstance(schema, Mapping):
        match schema["type"]:
            case "array":
                return st.lists(values(schema["items"]), max_size=3)
            case "map":
                return st.dictionaries(st.text(max_size=8), values(schema["values"]), max_size=3)
            case "record":
                return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in schema["fields"]})
    return {
        "null": st.none(),
        "string": st.text(max_size=8),
        "bytes": st.binary(max_size=8),
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
    }[schema]


def records(kind: Kind) -> st.SearchStrategy[dict[str, Any]]:
    """Return any record of this type."""
    file = f"{kind.codec.revision.event_types[kind.type].schema}.avsc"
    schema: Any = load_schema(str(SCHEMAS / kind.revision / file))
    return values(schema)


def payloads(kind: Kind) -> st.SearchStrategy[bytes]:
    return records(kind).map(lambda written: kind.codec.encode(kind.type, written))


@st.composite
def damaged(draw: st.DrawFn, kind: Kind) -> bytes:
    """Return a payload in which a few ranges were replaced."""
    payload = draw(payloads(kind))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(payload)))
        end = start + draw(st.integers(0, 3))
        payload = payload[:start] + draw(st.binary(max_size=3)) + payload[end:]
    return payload


def explained(kind: Kind, of: Message) -> dict[str, Any]:
    return kind.codec.explain(of.subject, of.payload)


def as_shown(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as users see it: bytes as in Avro's JSON encoding."""
    return {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in record.items()}


@each_kind
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_record_decodes_to_what_was_encoded(kind: Kind, data: st.DataObject) -> None:
    written = data.draw(records(kind))
    assert explained(kind, kind.message(kind.codec.encode(kind.type, written))) == as_shown(written)


def outcome(codec: Codec, of: Message) -> Sequence[Event] | Skipped | PoisonError:
    try:
        return codec.decode(of)
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


@each_kind
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_decode_to_storable_events_or_a_storable_reason(kind: Kind, data: st.DataObject) -> None:
    payload = data.draw(st.binary(max_size=64) | payloads(kind) | damaged(kind))
    result = outcome(kind.codec, kind.message(payload))
    assert not isinstance(result, Skipped)
    if isinstance(result, PoisonError):
        assert result.reason in get_args(PoisonReason)
        assert result.detail.isprintable()
        return
    named = [endpoint_id for event in result for endpoint_id in event.endpoint_ids]
    assert len(set(named)) == len(named)
    for event in result:
        assert all(map(storable, texts(event)))
        assert event.endpoint_ids
        assert all(0 < len(endpoint_id.encode()) <= 2692 for endpoint_id in event.endpoint_ids)
        assert 0 < event.stamp.occurred_at <= STORED_AT


@each_kind
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_glance_finds_the_only_endpoint_that_any_bytes_name(kind: Kind, data: st.DataObject) -> None:
    of = kind.message(data.draw(st.binary(max_size=64) | payloads(kind) | damaged(kind)))
    found, result = kind.codec.glance(of), outcome(kind.codec, of)
    if found is not None and not isinstance(result, Skipped | PoisonError):
        assert {endpoint_id.encode() for event in result for endpoint_id in event.endpoint_ids} == {found}


@each_kind
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_glance_finds_the_endpoint_of_any_record_that_has_one(kind: Kind, data: st.DataObject) -> None:
    written = data.draw(records(kind))
    found = kind.codec.glance(kind.message(kind.codec.encode(kind.type, written)))
    assert found == (written["endpointId"].encode() if "endpointId" in written else None)


@pytest.mark.parametrize(
    "subject",
    ["foreign", subjects.build("kpc", "config.future"), subjects.build("\udcff", "connectivity.connected")],
    ids=["foreign", "unknown-type", "originator-that-is-not-utf-8"],
)
@each_revision
def test_a_glance_finds_no_endpoint_if_the_subject_leads_to_no_record(revision: str, subject: str) -> None:
    assert CODECS[revision].glance(Message(POSITION, STORED_AT, subject, b"\x04e1")) is None


def test_a_message_may_name_the_endpoints_whose_ids_are_in_its_payload() -> None:
    codec = CODECS["kaa-2017-04"]
    message = Message(POSITION, STORED_AT, subjects.build("kpc", "connectivity.connected"), "\x04é1".encode())
    assert codec.may_name(message, "é1".encode())
    assert not codec.may_name(message, b"e1")


any_text = st.text(st.characters(exclude_categories=()))
any_type = st.sampled_from(sorted({kind.type for kind in KINDS}))


@each_revision
@settings(deadline=None)
@given(any_text | st.builds(subjects.build, any_text, any_text | any_type), st.binary(max_size=32))
def test_any_subject_is_folded_skipped_or_parked(revision: str, subject: str, payload: bytes) -> None:
    result = outcome(CODECS[revision], Message(POSITION, STORED_AT, subject, payload))
    assert not isinstance(result, PoisonError) or result.detail.isprintable()


def test_missing_fields_take_their_defaults() -> None:
    kind = Kind("kaa-2017-04", "lifecycle.appversion-updated")
    own, _ = SAMPLES[kind.revision][kind.type]
    defaults = {"correlationId": "", "timestamp": -1, "timeout": -1, "originatorReplicaId": None}
    assert explained(kind, kind.message(kind.codec.encode(kind.type, own))) == {**defaults, **own}


# What `show` prints of a dead letter.


@each_revision
def test_decodable_message_that_cannot_be_folded_is_shown(revision: str) -> None:
    kind = Kind(revision, "config.updated")
    empty = {"endpointId": "", "configId": "\0"}
    assert explained(kind, kind.message(kind.payload(**empty))) == as_shown(kind.record(**empty))


def test_fields_before_the_fault_of_a_truncated_message_are_shown() -> None:
    kind = Kind("kaa-2017-04", "config.updated")
    whole = kind.payload()
    shown = explained(kind, kind.message(whole[: whole.index(b"e", 10) + 1]))
    written = kind.record()
    assert shown == {name: written[name] for name in ("correlationId", "timestamp", "timeout", "endpointId")}


@each_revision
def test_fields_after_a_text_that_is_not_utf_8_are_not_shown(revision: str) -> None:
    kind = Kind(revision, "config.updated")
    written = kind.record(endpointId="e?", appVersionName="v?")
    payload = kind.payload(endpointId="e?", appVersionName="v?").replace(b"e?", b"e\xff").replace(b"v?", b"v\xff")
    shown = explained(kind, kind.message(payload))
    assert shown == {name: written[name] for name in ("correlationId", "timestamp", "timeout")}


@each_revision
def test_no_field_of_an_unknown_type_is_shown(revision: str) -> None:
    kind = Kind(revision, "lifecycle.forgotten")
    assert explained(kind, kind.message(b"\xff")) == {}


@bad_originators
@each_revision
def test_a_message_parked_for_its_originator_can_still_be_shown(revision: str, originator: str) -> None:
    kind = Kind(revision, "config.updated")
    assert explained(kind, kind.message(kind.payload(), originator)) == as_shown(kind.record())


# What is wrong before the first message.


def test_an_unknown_revision_names_the_setting_and_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"PROJECTOR_REVISION='kaa-2099-01'.*kaa-2017-04, kaa-2020-05"):
        Codec("kaa-2099-01", SCHEMAS)


@each_revision
@pytest.mark.parametrize(
    "content",
    [None, "no json", '{"type": "unheard-of"}', '{"type": "record"}'],
    ids=["missing", "no-json", "unknown-type", "incomplete"],
)
def test_a_schema_that_cannot_be_read_names_its_file(revision: str, content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / revision).mkdir()
        for event_type in CODECS[revision].revision.event_types.values():
            (tmp_path / revision / f"{event_type.schema}.avsc").write_text(content, encoding="utf-8")
    with pytest.raises(SettingError, match=r"connected\.avsc"):
        Codec(revision, tmp_path)
