"""Every check finds its fault, and nothing in a correct setup."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from projector.doctor.examination import CHECKS, examine
from projector.domain.broker_info import BrokerInfo, ConsumerInfo, Coverage, FeedInfo, Sample, StreamInfo, Traffic
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.database_info import BackendInfo, DatabaseInfo, WorkerInfo
from projector.domain.messages import Message, StreamState
from projector.domain.rules import Rules
from projector.domain.shards import Shard
from projector.domain.summary import FeedState
from projector.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    ProjectorError,
    SettingError,
)
from projector.stream.coverage import coverage

RULES = Rules(version=2, revision="kaa-2017-04", originators=())
FILTER = "kaa.v1.events.*.endpoint.>"
SUBJECTS = ("kaa.v1.events.*.endpoint.config.updated", "kaa.v1.events.*.endpoint.connectivity.connected")

STREAM = StreamInfo(
    state=StreamState(created_at=1, first=1, last=9, began=1, deleted=0),
    stores=dict.fromkeys(SUBJECTS, Coverage.WHOLLY),
)
CONSUMER = ConsumerInfo(name="projector", created_by_projector=True, filters=frozenset({FILTER}))
BROKER = BrokerInfo(
    version=(2, 15, 1), filters=(FILTER,), stream=STREAM, consumers=(CONSUMER,), clock=(10.0, 10.1, 10.2)
)
FEED = FeedInfo(prefix="fleet", stream="S_CHANGES", window_s=600.0)
BACKENDS = BackendInfo(announced=1, first=frozenset({1}), second=frozenset({2}))
CHECKPOINT = Checkpoint(stream="S", stream_created_at=1, rules=RULES, position=5)
DATABASE = DatabaseInfo(
    version=(18, 4),
    schema="public",
    migration="0001",
    migration_wanted="0001",
    backends=BACKENDS,
    clock=(10.0, 10.1, 10.2),
    checkpoints=(CHECKPOINT,),
)


async def names(
    broker: BrokerInfo | ProjectorError = BROKER, database: DatabaseInfo | ProjectorError = DATABASE
) -> set[str]:
    """The findings of an inspection."""

    async def look(what: Any) -> Any:
        if isinstance(what, ProjectorError):
            raise what
        return what

    examination = await examine(lambda _: look(broker), lambda: look(database), stream="S", rules=RULES)
    assert examination.has_error == any(finding.severity == "error" for finding in examination.findings)
    assert all(finding.what and finding.remedy for finding in examination.findings)
    return {finding.name for finding in examination.findings}


def broker(**changes: Any) -> dict[str, Any]:
    return {"broker": replace(BROKER, **changes)}


def stream(**changes: Any) -> dict[str, Any]:
    return broker(stream=replace(STREAM, **changes))


def state(**changes: Any) -> dict[str, Any]:
    return stream(state=STREAM.state._replace(**changes))


def consumer(**changes: Any) -> dict[str, Any]:
    return broker(consumers=(replace(CONSUMER, **changes),))


def database(**changes: Any) -> dict[str, Any]:
    return {"database": replace(DATABASE, **changes)}


def backends(**changes: Any) -> dict[str, Any]:
    return database(backends=replace(BACKENDS, **changes))


def checkpoint(**changes: Any) -> dict[str, Any]:
    return database(checkpoints=(replace(CHECKPOINT, **changes),))


def divided(*positions: int, led: Iterable[int] = (0, 1, 2)) -> dict[str, Any]:
    """A database with a shard at each position."""
    checkpoints = [
        replace(CHECKPOINT, shard=Shard(number, len(positions)), position=position)
        for number, position in enumerate(positions)
    ]
    return database(checkpoints=tuple(checkpoints), led=frozenset(led))


CONSUMERS = (CONSUMER, *(replace(CONSUMER, name=f"projector-{shard}", shard=shard) for shard in (1, 2)))
"""Those of three shards."""


def third_consumer(**changes: Any) -> dict[str, Any]:
    return broker(consumers=(*CONSUMERS[:2], replace(CONSUMERS[2], **changes)))


def stores(*found: Coverage) -> dict[str, Any]:
    return stream(stores=dict(zip(SUBJECTS, found, strict=True)))


def traffic(messages: int, matching: dict[str, int], foreign: dict[str, int]) -> dict[str, Any]:
    return stream(traffic=Traffic(messages=messages, matching=matching, foreign=foreign))


def feed(**changes: Any) -> dict[str, Any]:
    return broker(feed=replace(FEED, **changes))


OLD, TODAY, BOTH, NONE = ({"kaa-2017-04"}, {"kaa-2020-05"}, {"kaa-2017-04", "kaa-2020-05"}, set[str]())
"""The revisions that can read a sample; the settings name the old one."""


def sampled(*readers: set[str]) -> dict[str, Any]:
    return stream(samples=tuple(Sample(number, frozenset(one)) for number, one in enumerate(readers, 1)))


BAD: list[tuple[dict[str, Any], set[str]]] = [
    ({"broker": BrokerUnavailableError("away")}, {"nats-unreachable"}),
    ({"broker": BrokerRefusedError("no")}, {"nats-refused"}),
    ({"database": DatabaseUnavailableError("away")}, {"postgres-unreachable"}),
    ({"database": DatabaseRefusedError("no")}, {"postgres-refused"}),
    (broker(stream=None, consumers=(), stream_missing=True), {"stream-missing"}),
    (state(created_at=2), {"stream-replaced"}),
    (state(last=4), {"stream-replaced"}),
    (state(first=7), {"events-lost", "beginning-gone"}),
    (checkpoint(rules=replace(RULES, version=1)), {"rules-changed"}),
    (checkpoint(rules=replace(RULES, originators=("kpc",))), {"rules-changed"}),
    (checkpoint(rules=replace(RULES, revision="kaa-0")), {"rules-changed"}),
    (checkpoint(stream="T", stream_created_at=2), {"rules-changed"}),
    (consumer(waiting=1), {"consumer-shared"}),
    (broker(clock=(10.0, 11.3, 10.2)), {"clock-skew"}),
    (database(clock=(10.0, 8.9, 10.2)), {"clock-skew"}),
    (broker(forbidden=("$JS.API.STREAM.INFO.S",)), {"nats-permissions"}),
    (broker(forbidden_to_replay=("$JS.API.CONSUMER.CREATE.S",)), {"nats-permissions-to-replay"}),
    (broker(forbidden_to_acknowledge=("$JS.ACK.*.*.S.C.>",)), {"nats-permissions-to-acknowledge"}),
    (broker(free_consumers=0, consumers=(), missing_consumers=1), {"consumer-limit"}),
    (broker(free_consumers=1, consumers=(), missing_consumers=1), {"consumer-limit-to-replay"}),
    (broker(free_consumers=0), {"consumer-limit-to-replay"}),
    (broker(jetstream=False, stream=None, consumers=()), {"jetstream-off"}),
    (
        broker(version=(2, 9, 25), filters=("a", "b"), consumers=()),
        {"nats-too-old", "nats-fault"},
    ),
    (broker(version=(2, 11, 0)), {"nats-fault"}),
    (broker(sync_every_s=120.0), {"lazy-sync"}),
    (stream(acknowledges_unwritten=True), {"lazy-sync"}),
    (stores(Coverage.NOT_AT_ALL, Coverage.NOT_AT_ALL), {"subjects-missing"}),
    (stores(Coverage.NOT_AT_ALL, Coverage.WHOLLY), {"subjects-partly-missing"}),
    (stores(Coverage.PARTLY, Coverage.PARTLY), {"subjects-partly-missing"}),
    (traffic(9, {"kpc": 9, "epr": 0}, {}), {"no-message-matches"}),
    (traffic(9, {"*": 0}, {"orders.>": 9}), {"no-message-matches", "foreign-messages"}),
    (traffic(9, {"*": 4}, {"orders.>": 5}), {"foreign-messages"}),
    (traffic(9, {"kpc": 2, "epr": 2}, {}), {"foreign-messages"}),
    (sampled(TODAY, TODAY, TODAY), {"other-revision"}),
    (sampled(TODAY, BOTH, TODAY, NONE, TODAY, BOTH), {"other-revision"}),
    (sampled(OLD, OLD, TODAY, TODAY, TODAY, TODAY, TODAY), {"other-revision"}),
    (stream(transformed=(FILTER,)), {"subjects-transformed"}),
    (stream(sealed=frozenset({0})), {"sealed"}),
    (stream(max_message_bytes=1000), {"message-size-limit"}),
    (stream(retention="workqueue"), {"retention"}),
    (stream(retention="interest"), {"retention"}),
    (stream(max_messages_per_subject=1), {"limit-per-subject"}),
    (stream(max_age_s=60.0), {"limits"}),
    (stream(max_messages=10), {"limits"}),
    (stream(max_bytes=10), {"limits"}),
    (stream(message_ttl=True), {"limits"}),
    (stream(max_bytes=10, refuses_when_full=True), {"fills-up"}),
    (stream(max_age_s=60.0, refuses_when_full=True), {"limits"}),
    (state(first=4), {"beginning-gone"}),
    (state(first=4, began=4), set()),
    (stream(clustered=True), {"one-replica"}),
    (stream(storage="memory"), {"in-memory"}),
    (consumer(created_by_projector=False, pushes=True), {"consumer-taken"}),
    (consumer(created_by_projector=False, acknowledges="explicit"), {"consumer-taken"}),
    (consumer(created_by_projector=False, filters=frozenset()), {"consumer-taken"}),
    (consumer(headers_only=True), {"consumer-unusable"}),
    (consumer(paused_until="2200-01-01T00:00:00Z"), {"consumer-paused"}),
    (consumer(prioritises=True), {"consumer-unusable"}),
    (database(version=(14, 22)), {"postgres-too-old"}),
    (database(standby=True), {"standby"}),
    (database(encoding="LATIN1"), {"encoding"}),
    (database(off=frozenset({"fsync"})), {"fsync-off"}),
    (database(off=frozenset({"full_page_writes"})), {"full-page-writes-off"}),
    (database(off=frozenset({"synchronous_commit"})), {"synchronous-commit-off"}),
    (backends(first=frozenset({1, 3})), {"pooler"}),
    (backends(announced=7, second=frozenset({1})), {"pooler"}),
    (backends(announced=7), {"maybe-pooler"}),
    (backends(second=frozenset(), refusal="unsupported startup parameter"), {"second-connection"}),
    (backends(ignored=("jit",)), {"ignored-parameters"}),
    (database(migration=None, checkpoints=()), {"not-migrated"}),
    (database(search_path_without_schema="nowhere"), {"schema-missing"}),
    (database(absent=("dead_letter",), checkpoints=()), {"tables-altered"}),
    (database(workers=(WorkerInfo(name="w:5432", prepared_transactions=200),)), set()),
    (database(workers=(WorkerInfo(name="w:5432", prepared_transactions=0),)), {"worker-cannot-prepare"}),
    (
        database(
            workers=(WorkerInfo(name="w:5432", prepared_transactions=10),),
            checkpoints=(replace(CHECKPOINT, shard=Shard(0, 2)), replace(CHECKPOINT, shard=Shard(1, 2))),
        ),
        {"worker-cannot-prepare"},
    ),
    (database(batch_table_missing=True), {"batch-table-missing"}),
    (database(workers=(WorkerInfo(name="w:5432", error="connection refused"),)), {"worker-silent"}),
    (database(row_security=("endpoint_state",)), {"row-security"}),
    (database(missing_privileges=("INSERT on dead_letter",)), {"privileges"}),
    (feed(forbidden=("fleet.>",), stream=None), {"publish-permissions"}),
    (feed(stream=None), {"changes-stream-missing"}),
    (feed(stores_events=True, stores_others=True), {"changes-stream-mixed"}),
    (feed(stores_others=True), {"changes-stream-shared"}),
    (feed(sealed=frozenset({0})), {"changes-stream-sealed"}),
    (feed(window_s=60.0), {"changes-window"}),
    (feed(max_messages=9, refuses_when_full=True), {"changes-fill-up"}),
    (feed(max_bytes=9, refuses_when_full=True), {"changes-fill-up"}),
    (feed(max_message_bytes=1000), {"changes-message-size"}),
    (database(feed=FeedState("fleet", error="away")), {"not-publishing"}),
    (database(feed=FeedState("fleet", lost_commits=3)), {"changes-lost"}),
    (database(missing_to_rebuild=("DELETE on endpoint_state",)), {"privileges-to-rebuild"}),
    ({**third_consumer(headers_only=True), **divided(5, 5, 5)}, {"consumer-unusable"}),
    ({**third_consumer(paused_until="2200-01-01T00:00:00Z"), **divided(5, 5, 5)}, {"consumer-paused"}),
    ({**third_consumer(created_by_projector=False, pushes=True), **divided(5, 5, 5)}, {"consumer-taken"}),
    ({**third_consumer(waiting=1), **divided(5, 5, 5, led=())}, {"consumer-shared"}),
    ({**third_consumer(waiting=1), **divided(5, 5, 5, led=(0, 1))}, {"consumer-shared", "shard-without-leader"}),
    (
        {**broker(consumers=CONSUMERS[1:], missing_consumers=1, free_consumers=0), **divided(5, 5, 5)},
        {"consumer-limit"},
    ),
    (
        {**broker(consumers=CONSUMERS[:1], missing_consumers=2, free_consumers=1), **divided(5, 5, 5)},
        {"consumer-limit"},
    ),
    (
        {**broker(consumers=CONSUMERS[:1], missing_consumers=2, free_consumers=2), **divided(5, 5, 5)},
        {"consumer-limit-to-replay"},
    ),
    (divided(5, 5, 5, led=(1, 2)), {"shard-without-leader"}),
    ({**state(last=7), **divided(5, 8, 5)}, {"stream-replaced"}),
    ({**state(first=7), **divided(9, 9, 3, led=())}, {"events-lost", "beginning-gone"}),
    ({**state(first=7), **divided(9, 9, 3, led=(0, 1))}, {"events-lost", "beginning-gone", "shard-without-leader"}),
    (database(checkpoints=(replace(CHECKPOINT, shard=Shard(1, 2)),)), {"checkpoint-incomplete"}),
]


async def test_sound_setup_has_no_findings() -> None:
    assert await names() == set()


def test_database_is_migrated_if_its_migration_is_the_expected_one() -> None:
    read_back = str(b"0001", "ascii")
    assert read_back is not DATABASE.migration_wanted
    assert replace(DATABASE, migration=read_back).migrated
    assert not replace(DATABASE, migration="0002").migrated


@pytest.mark.parametrize(
    ("seen", "found"), BAD, ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else ""
)
async def test_bad_setup_has_exactly_its_finding(seen: dict[str, Any], found: set[str]) -> None:
    assert await names(**seen) == found


def test_every_check_is_tested_and_has_a_unique_name() -> None:
    every = [check.name for check in CHECKS]
    assert len(every) == len(set(every))
    assert set(every) == set[str]().union(*(found for _, found in BAD))


@pytest.mark.parametrize(
    "seen",
    [
        consumer(created_by_projector=False),  # created by hand, with the right configuration
        consumer(acknowledges="explicit"),  # created by a projector and changed: the daemon corrects it
        {**consumer(waiting=2), **database(led=frozenset({0}))},
        stream(clustered=True, replicas=3),
        stream(stores={}),  # filled from other streams
        traffic(0, {"*": 0}, {}),
        traffic(10, {"*": 5}, {"orders.>": 5}),
        traffic(10, {"*": 11}, {}),  # one came while they were counted
        sampled(OLD, OLD, OLD),
        sampled(TODAY, TODAY),  # too few to tell
        sampled(TODAY, TODAY, *[BOTH] * 9),
        sampled(*[NONE] * 9),
        sampled(TODAY, TODAY, TODAY, OLD),  # of both
        sampled(*[TODAY] * 9, *[OLD] * 5),  # older ones of another revision
        stream(refuses_when_full=True),
        broker(sync_every_s=0.0),
        broker(clock=(10.0, 11.1, 15.0)),  # a slow answer is not skew
        broker(clock=None),
        broker(free_consumers=1),
        broker(free_consumers=2, consumers=(), missing_consumers=1),
        stream(max_message_bytes=1 << 20),
        feed(),
        feed(max_messages=9),
        feed(refuses_when_full=True),
        feed(stream=None, unseen="not permitted"),
        database(feed=FeedState("fleet", cursor=3)),
        broker(stream=None, consumers=()),
        database(checkpoints=()),
        broker(consumers=()),
        divided(5, 3, 9),
        divided(5, 3, 9, led=()),
        {**third_consumer(waiting=1), **divided(5, 5, 5)},
        {**broker(consumers=CONSUMERS[:1], missing_consumers=2, free_consumers=3), **divided(5, 5, 5)},
    ],
)
async def test_harmless_setup_has_no_findings(seen: dict[str, Any]) -> None:
    assert await names(**seen) == set()


async def test_cluster_fault_is_not_reported_for_a_single_server() -> None:
    async def told(clustered: bool) -> str:
        seen = replace(BROKER, version=(2, 10, 22), stream=replace(STREAM, clustered=clustered, replicas=3))

        async def look_at_broker(_: Sequence[int]) -> BrokerInfo:
            return seen

        async def look_at_database() -> DatabaseInfo:
            return DATABASE

        examination = await examine(look_at_broker, look_at_database, stream="S", rules=RULES)
        return "".join(finding.what for finding in examination.findings)

    assert "issue 6888" in await told(clustered=True)
    assert "issue 6888" not in await told(clustered=False)


async def told(name: str, seen: dict[str, Any]) -> str:
    """Return the text of a finding."""

    async def look(what: Any) -> Any:
        return what

    broker, database = seen.get("broker", BROKER), seen.get("database", DATABASE)
    examination = await examine(lambda _: look(broker), lambda: look(database), stream="S", rules=RULES)
    (finding,) = [finding for finding in examination.findings if finding.name == name]
    return finding.what


async def test_revision_of_the_stream_is_named() -> None:
    said = await told("other-revision", sampled(TODAY, TODAY, TODAY))
    assert said == "the newest events are of revision kaa-2020-05, but PROJECTOR_REVISION is kaa-2017-04"


@pytest.mark.parametrize(
    ("foreign", "said"),
    [
        ({"a.>": 6}, "the others: 6 of a.>"),
        ({"a.>": 3, "b": 2, "c": 1}, "the others: 3 of a.>, 2 of b, 1 of c"),
        ({"a.>": 2, "b": 1, "c": 1, "d": 1, "e": 1}, "the others: 2 of a.>, 1 of b, 1 of c, 2 of more subjects"),
        ({}, "the others have too many subjects to list"),
    ],
    ids=["one", "three", "many", "too many"],
)
async def test_foreign_traffic_is_named_with_the_share_of_ours(foreign: dict[str, int], said: str) -> None:
    seen = traffic(8, {"kpc": 1, "epr": 1}, foreign)
    assert (
        await told("foreign-messages", seen)
        == f"2 of the 8 messages in the stream (25.0%) match the daemon's filters; {said}"
    )


async def test_forbidden_information_is_not_reported_as_missing() -> None:
    assert await names(**database(migration=None, schema=None, checkpoints=())) == set()
    unseen = database(migration=None, checkpoints=(), missing_privileges=("SELECT on projector_migration",))
    assert await names(**unseen) == {"privileges"}


async def test_lost_events_are_left_to_a_running_daemon() -> None:
    assert await names(**state(first=7), **database(led=frozenset({0}))) == {"beginning-gone"}


async def test_lost_events_are_left_to_the_leader_of_the_shard_that_lacks_them() -> None:
    lacking = divided(9, 9, 3, led=(1, 2))
    assert await names(**state(first=7), **lacking) == {"beginning-gone", "shard-without-leader"}


async def test_broker_is_inspected_for_every_shard() -> None:
    asked: list[Sequence[int]] = []

    async def positions(database: DatabaseInfo | ProjectorError) -> Sequence[int]:
        async def look_at_broker(positions: Sequence[int]) -> BrokerInfo:
            asked.append(positions)
            return BROKER

        async def look_at_database() -> DatabaseInfo:
            if isinstance(database, ProjectorError):
                raise database
            return database

        await examine(look_at_broker, look_at_database, stream="S", rules=RULES)
        return asked.pop()

    assert await positions(divided(5, 3, 9)["database"]) == (5, 3, 9)
    assert await positions(replace(DATABASE, checkpoints=(replace(CHECKPOINT, shard=Shard(1, 2)),))) == (0, 5)
    assert await positions(replace(DATABASE, checkpoints=())) == (0,)
    assert await positions(DatabaseUnavailableError("away")) == (0,)


async def test_message_at_the_checkpoint_of_any_shard_can_reveal_another_stream() -> None:
    ours, other = (Message(8, 1, "s", payload, None) for payload in (b"ours", b"other"))
    checkpoints = (
        replace(CHECKPOINT, shard=Shard(0, 2)),
        replace(CHECKPOINT, shard=Shard(1, 2), position=8, anchor=Anchor.of(ours)),
    )
    seen = database(checkpoints=checkpoints, led=frozenset({0, 1}))
    assert await names(**stream(at_checkpoints={8: ours}), **seen) == set()
    assert await names(**stream(at_checkpoints={8: other}), **seen) == {"stream-replaced"}


@pytest.mark.parametrize(
    ("name", "seen", "said"),
    [
        (
            "shard-without-leader",
            divided(5, 5, 5, led=(1,)),
            "shards 0, 2 have no leader, and others have one",
        ),
        ("shard-without-leader", divided(5, 5, 5, led=(0, 2)), "shard 1 has no leader, and others have one"),
        (
            "consumer-shared",
            {**third_consumer(waiting=1), **divided(5, 5, 5, led=())},
            "another process pulls from consumer 'projector-2': shard 2 has no leader",
        ),
        (
            "consumer-unusable",
            broker(consumers=tuple(replace(one, headers_only=one.shard > 0) for one in CONSUMERS)),
            "it delivers headers without payloads; consumer 'projector-2' delivers nothing that can be folded: it",
        ),
        (
            "consumer-limit",
            broker(consumers=CONSUMERS[:1], missing_consumers=2, free_consumers=1),
            "the stream or the account allows only 1 more consumer (max_consumers), and 2 of the daemon's do not exist",
        ),
        ("events-lost", {**state(first=7), **divided(9, 4, 3, led=())}, "folded up to 3 only"),
        (
            "checkpoint-incomplete",
            database(checkpoints=(replace(CHECKPOINT, shard=Shard(1, 3)),)),
            "projector_checkpoint has 1 of the rows of 3 shards",
        ),
    ],
)
async def test_findings_name_the_shard_or_its_consumer(name: str, seen: dict[str, Any], said: str) -> None:
    assert said in await told(name, seen)


async def test_checkpoint_is_read_before_the_stream() -> None:
    """Otherwise, while a daemon folds, the stream would seem to have lost its tail."""
    looked = []

    async def look(what: Any) -> Any:
        looked.append(what)
        return what

    await examine(lambda _: look(BROKER), lambda: look(DATABASE), stream="S", rules=RULES)
    assert looked == [DATABASE, BROKER]


async def test_trimmed_stream_stops_the_first_run() -> None:
    first_run = {**state(first=4), **database(checkpoints=())}
    assert await names(**first_run) == {"beginning-gone", "events-lost"}
    assert await names(**first_run | database(migration=None, checkpoints=())) == {"beginning-gone", "not-migrated"}
    unread = database(absent=("projector_checkpoint",), checkpoints=())
    assert await names(**first_run | unread) == {"beginning-gone", "tables-altered"}


async def test_each_server_is_examined_if_the_other_is_unreachable() -> None:
    away = BrokerUnavailableError("away")
    assert await names(away, replace(DATABASE, encoding="LATIN1")) == {"nats-unreachable", "encoding"}
    gone = DatabaseUnavailableError("away")
    assert await names(replace(BROKER, jetstream=False), gone) == {"postgres-unreachable", "jetstream-off"}


async def test_a_wrong_setting_is_not_a_finding() -> None:
    with pytest.raises(SettingError):
        await names(SettingError("no such file"))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((">",), Coverage.WHOLLY),
        (("kaa.>",), Coverage.WHOLLY),
        (("kaa.v1.events.*.endpoint.>",), Coverage.WHOLLY),
        (("kaa.v1.events.*.endpoint.config.updated",), Coverage.WHOLLY),
        (("*.*.*.*.*.*.*",), Coverage.WHOLLY),
        (("other.>", "kaa.v1.events.*.*.config.*"), Coverage.WHOLLY),
        (("kaa.v1.events.kpc.endpoint.>",), Coverage.PARTLY),
        (("kaa.v1.events.kpc.endpoint.config.updated", "kaa.v1.events.epr.>"), Coverage.PARTLY),
        (("kaa.v1.events.*.endpoint.config",), Coverage.NOT_AT_ALL),
        (("kaa.v1.events.*.endpoint.config.updated.>",), Coverage.NOT_AT_ALL),
        (("kaa.v1.events.*.endpoint.config.new-available",), Coverage.NOT_AT_ALL),
        (("kaa.v2.>",), Coverage.NOT_AT_ALL),
        ((), Coverage.NOT_AT_ALL),
    ],
)
def test_how_much_of_a_subject_a_stream_stores(stored: tuple[str, ...], expected: Coverage) -> None:
    assert coverage(stored, "kaa.v1.events.*.endpoint.config.updated") == expected
