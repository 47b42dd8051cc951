"""Messages that cannot be folded are parked, and messages that need not be are skipped, in both revisions."""

from typing import NamedTuple, TypeAlias

import pytest
from nats.aio.client import Client

from projector.errors import PoisonReason
from projector.stream import subjects
from projector.stream.limits import MAX_ENDPOINT_ID_BYTES
from tests.support.fixtures import Wire
from tests.support.scene import Scene
from tests.support.versions import needs_nats
from tests.support.wire_samples import SAMPLES, Kind, Record

CONSUMER = "endpoint-state-projector"
REVISIONS = tuple(SAMPLES)
OLD, TODAY = REVISIONS

each_revision = pytest.mark.parametrize("revision", REVISIONS)


def wire(kind: Kind, payload: bytes) -> Wire:
    return subjects.build("kpc", kind.type), payload


def sample(revision: str, event_type: str, **changes: object) -> Wire:
    """Return the message of a sample, with some fields changed."""
    kind = Kind(revision, event_type)
    return wire(kind, kind.payload(**changes))


def named(revision: str, *endpoint_ids: str) -> Record:
    """Return the field in which a connectivity event of several endpoints names them."""
    return {"endpointIds": list(endpoint_ids)} if revision == OLD else {"endpoints": dict.fromkeys(endpoint_ids, "v")}


def disconnected(revision: str, *endpoint_ids: str, **changes: object) -> Wire:
    return sample(revision, "connectivity.disconnected", **named(revision, *endpoint_ids), **changes)


def registered(revision: str, endpoint_id: str) -> Wire:
    return sample(revision, "lifecycle.registered", endpointId=endpoint_id)


Case: TypeAlias = tuple[str, Wire, PoisonReason]
"""What is wrong with a message, the message, and why it is parked."""


class Bad(NamedTuple):
    """A message that is parked."""

    revision: str
    what: str
    message: Wire
    reason: PoisonReason

    def __str__(self) -> str:
        return f"{self.revision}: {self.what}"


def bad_in_both(revision: str) -> list[Bad]:
    subject, payload = disconnected(revision, "e1")
    too_long = "x" * (MAX_ENDPOINT_ID_BYTES + 1)
    cases: list[Case] = [
        ("cut short", (subject, payload[:-1]), "malformed-payload"),
        ("no payload", (subject, b""), "malformed-payload"),
        ("noise", (subject, b"\xff" * 40), "malformed-payload"),
        ("id that is not UTF-8", (subject, payload.replace(b"e1", b"e\xff")), "malformed-payload"),
        ("bytes left over", (subject, payload + b"\x00"), "trailing-bytes"),
        ("empty id", sample(revision, "config.updated", endpointId=""), "empty-endpoint-id"),
        ("empty id alone in a list or map", disconnected(revision, ""), "empty-endpoint-id"),
        ("empty id among others in a list or map", disconnected(revision, "e1", "", "e2"), "empty-endpoint-id"),
        ("NUL in an id", disconnected(revision, "e1", "nul\0"), "unstorable-text"),
        ("NUL in the replica id", disconnected(revision, "e1", originatorReplicaId="nul\0"), "unstorable-text"),
        ("NUL in a version", sample(revision, "lifecycle.registered", appVersionName="v\0"), "unstorable-text"),
        ("NUL in a configuration id", sample(revision, "config.updated", configId="c\0"), "unstorable-text"),
        ("id too long to index", disconnected(revision, "e1", too_long), "endpoint-id-too-long"),
    ]
    return [Bad(revision, *rest) for rest in cases]


def bad_today() -> list[Bad]:
    def metadata(**changes: object) -> Wire:
        return sample(TODAY, "metadata.updated", **changes)

    def connected(**endpoints: str) -> Wire:
        return sample(TODAY, "connectivity.connected", endpoints=endpoints)

    def updated(value: str) -> Wire:
        return metadata(updated={"k": {"newValue": value, "oldValue": None}})

    cases: list[Case] = [
        ("empty id in the map of a connect", connected(**{"e1": "v", "": "v"}), "empty-endpoint-id"),
        ("NUL in a version of the map of a connect", connected(e1="v", e2="v\0"), "unstorable-text"),
        ("empty id of an unregistration", sample(TODAY, "lifecycle.unregistered", endpointId=""), "empty-endpoint-id"),
        ("NUL in a metadata key", metadata(added={"k\0": "1"}), "unstorable-text"),
        ("NUL in a removed metadata key", metadata(removed={"k\0": "1"}), "unstorable-text"),
        ("NUL in a value that is no JSON", metadata(added={"k": "nul\0"}), "unstorable-text"),
        ("escaped NUL in a JSON string", metadata(added={"k": r'"\u0000"'}), "unstorable-text"),
        ("escaped NUL in a key of a JSON object", updated(r'{"a": {"\u0000": 1}}'), "unstorable-text"),
        ("high half of a surrogate pair in a JSON value", metadata(added={"k": r'["\ud83d"]'}), "unstorable-text"),
        ("low half of a surrogate pair in a JSON value", updated(r'"\ude00"'), "unstorable-text"),
        ("number that no numeric holds", metadata(added={"k": "1e999999"}), "unstorable-json"),
        ("deep nesting", updated("[" * 5000 + "]" * 5000), "unstorable-json"),
        (
            "NUL in the reason of a failed configuration",
            sample(TODAY, "config.applied", statusCode=500, reasonPhrase="nul\0"),
            "unstorable-text",
        ),
    ]
    return [Bad(TODAY, *rest) for rest in cases]


def bad_old() -> list[Bad]:
    cases: list[Case] = [
        ("empty id of a connect", sample(OLD, "connectivity.connected", endpointId=""), "empty-endpoint-id"),
        ("NUL in a metadata key", sample(OLD, "metadata.updated", added=["k\0"]), "unstorable-text"),
        ("NUL in a removed metadata key", sample(OLD, "metadata.updated", removed=["k\0"]), "unstorable-text"),
    ]
    return [Bad(OLD, *rest) for rest in cases]


BAD = [*bad_in_both(OLD), *bad_old(), *bad_in_both(TODAY), *bad_today()]


@pytest.mark.parametrize("bad", BAD, ids=str)
async def test_message_that_cannot_be_folded_is_parked_and_others_are_folded(scene: Scene, bad: Bad) -> None:
    await scene.publish(registered(bad.revision, "before"), bad.message, registered(bad.revision, "after"))
    await scene.fold(revision=bad.revision)
    assert await scene.query("SELECT position, reason, subject, payload, attempts FROM dead_letter") == [
        (2, bad.reason, *bad.message, 1)
    ]
    assert [row[0] for row in await scene.table()] == ["after", "before"]
    assert await scene.position() == 3


@each_revision
async def test_the_longest_endpoint_id_that_is_accepted_gets_a_row(scene: Scene, revision: str) -> None:
    # Random enough that Postgres cannot make it shorter, in characters of several bytes.
    longest = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(897)) + "x"
    assert len(longest.encode()) == MAX_ENDPOINT_ID_BYTES
    await scene.publish(disconnected(revision, longest))
    await scene.fold(revision=revision)
    assert [row[0] for row in await scene.table()] == [longest]


@each_revision
async def test_event_that_names_no_endpoint_changes_nothing_and_is_not_parked(scene: Scene, revision: str) -> None:
    await scene.publish(disconnected(revision))
    await scene.fold(revision=revision)
    assert (await scene.table(), await scene.dead_letters(), await scene.position()) == ([], [], 1)


@pytest.mark.parametrize(
    ("revision", "known_elsewhere"), [(OLD, "lifecycle.unregistered"), (TODAY, "config.new-available")]
)
async def test_unknown_types_of_known_groups_are_skipped_and_counted(
    scene: Scene, revision: str, known_elsewhere: str
) -> None:
    _, payload = disconnected(revision, "e1")
    types = ["connectivity.suspended", known_elsewhere, "connectivity.suspended", "config.a.b"]
    await scene.publish(*((f"kaa.v1.events.kpc.endpoint.{one}", payload) for one in types))
    await scene.fold(revision=revision, batch_size=2)
    assert await scene.query("SELECT skipped::jsonb = $1::jsonb FROM projector_checkpoint", counted(types)) == [(True,)]
    assert (await scene.table(), await scene.dead_letters(), await scene.position()) == ([], [], 4)


def counted(types: list[str]) -> str:
    """Return the JSON object that counts some types."""
    return "{" + ", ".join(f'"{one}": {types.count(one)}' for one in set(types)) + "}"


@needs_nats(2, 10)
@each_revision
async def test_messages_of_unknown_groups_are_not_delivered(scene: Scene, revision: str, nats_client: Client) -> None:
    measured = subjects.build("dcx", "data-collection.data-points-received.temperature"), b"x"
    reported = subjects.build("tr", "traffic-reporting.payload"), b"x"
    await scene.publish(measured, reported, registered(revision, "e1"), measured, registered(revision, "e2"), reported)
    await scene.fold(revision=revision)
    delivered = (await nats_client.jetstream().consumer_info(scene.stream, CONSUMER)).delivered
    assert delivered is not None
    assert delivered.consumer_seq == 2
    assert [row[0] for row in await scene.table()] == ["e1", "e2"]
    assert await scene.query("SELECT skipped FROM projector_checkpoint") == [("{}",)]
    assert await scene.dead_letters() == []


@pytest.mark.parametrize(("spoken", "read_as"), [(OLD, TODAY), (TODAY, OLD)])
async def test_messages_of_another_revision_are_parked_with_its_name(scene: Scene, spoken: str, read_as: str) -> None:
    shared = sorted(SAMPLES[spoken].keys() & SAMPLES[read_as].keys())
    await scene.publish(*(sample(spoken, event_type) for event_type in shared))
    await scene.fold(revision=read_as)
    details = [detail for (detail,) in await scene.query("SELECT detail FROM dead_letter ORDER BY position")]
    assert len(details) == len(shared)
    assert all(f"revision {spoken}: see PROJECTOR_REVISION" in detail for detail in details)
    assert await scene.table() == []
