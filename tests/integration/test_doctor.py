"""The doctor on real servers with bad configurations: it names each fault."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError

from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres
from projector.doctor.examination import Examination
from projector.queries import inspection as database_inspection
from projector.runtime import Projector
from projector.settings import load
from projector.stream import inspection as broker_inspection
from projector.stream import subjects, traffic
from projector.stream.consumers import _filter_config
from projector.stream.kaa_2017_04 import REVISION
from tests.support import servers
from tests.support.fixtures import Event, Eventually, Query, Wire
from tests.support.pooler import pooled
from tests.support.ports import free_ports
from tests.support.scene import Scene
from tests.support.versions import FAULTS, NATS_VERSION, needs_nats
from tests.support.wire_samples import KINDS, Kind

STREAM = "KAA_ENDPOINT_EVENTS"
CONSUMER = "endpoint-state-projector"

OF_THE_SERVERS = {"fsync-off", "full-page-writes-off"} | FAULTS
"""What is wrong with the servers of the tests, and is found in each test."""


async def examination(nats_url: str, database_url: str, monitoring: str | None = None, **settings: str) -> Examination:
    flags = {"nats_url": nats_url, "database_url": database_url} | settings
    return await Projector(load(flags, config=None, fallback=None)).doctor(nats_monitoring=monitoring)


async def named(nats_url: str, database_url: str, monitoring: str | None = None, **settings: str) -> set[str]:
    found = await examination(nats_url, database_url, monitoring, **settings)
    return {finding.name for finding in found.findings} - OF_THE_SERVERS


async def test_doctor_finds_servers_without_init(nats_url: str, empty_database_url: str) -> None:
    assert await named(nats_url, empty_database_url) == {"stream-missing", "not-migrated"}


async def test_doctor_finds_only_the_test_settings_of_postgres(scene: Scene, event: Event) -> None:
    found = await examination(scene.nats_url, scene.database_url)
    assert {finding.name for finding in found.findings} == OF_THE_SERVERS
    await scene.publish(event("connectivity.connected", "e"))
    daemon = scene.follow()
    await daemon.hears("caught up at 1")
    assert await named(scene.nats_url, scene.database_url) == set()
    await daemon.stop()
    assert await named(scene.nats_url, scene.database_url) == set()


async def test_doctor_changes_nothing(scene: Scene, nats_client: Client, event: Event, eventually: Eventually) -> None:
    await scene.publish(event("connectivity.connected", "e"))
    await scene.fold()
    await scene.publish(event("connectivity.connected", "e"))
    jetstream = nats_client.jetstream()

    async def everything() -> list[object]:
        stream, consumer = await jetstream.stream_info(STREAM), await jetstream.consumer_info(STREAM, CONSUMER)
        return [
            stream.config,
            stream.state,
            consumer.config,
            consumer.delivered,
            consumer.ack_floor,
            consumer.num_waiting,
        ]

    async def is_settled() -> bool:
        consumer = await jetstream.consumer_info(STREAM, CONSUMER)
        return bool(consumer.num_ack_pending == 0 and consumer.num_waiting == 0)

    await eventually(is_settled)  # the server processes acknowledgements a moment later
    before = await everything()
    await named(scene.nats_url, scene.database_url)
    assert await everything() == before


async def test_doctor_finds_unreachable_servers(server_folder: Path) -> None:
    database_url = f"postgresql://postgres@/postgres?host={server_folder}"
    assert await named("nats://127.0.0.1:1", database_url) == {"nats-unreachable", "postgres-unreachable"}


async def test_doctor_finds_a_missing_database_and_a_missing_stream(
    nats_url: str, postgres_server: EmbeddedPostgres
) -> None:
    assert await named(nats_url, postgres_server.url_of("nowhere")) == {"postgres-refused", "stream-missing"}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"retention": "workqueue"}, {"retention"}),
        ({"retention": "interest"}, {"retention"}),
        ({"max_msgs_per_subject": 1}, {"limit-per-subject"}),
        ({"max_age": 60 * 10**9}, {"limits"}),
        ({"max_msgs": 10}, {"limits"}),
        ({"max_bytes": 1000}, {"limits"}),
        pytest.param({"allow_msg_ttl": True}, {"limits"}, marks=needs_nats(2, 11)),
        ({"max_msgs": 10, "discard": "new"}, {"fills-up"}),
        ({"storage": "memory"}, {"in-memory"}),
        pytest.param({"persist_mode": "async"}, {"lazy-sync"}, marks=needs_nats(2, 12)),
        ({"subjects": ["orders.>"]}, {"subjects-missing"}),
        ({"subjects": ["kaa.v1.events.*.endpoint.config.*"]}, {"subjects-partly-missing"}),
        ({"subjects": ["kaa.v1.events.kpc.endpoint.>"]}, {"subjects-partly-missing"}),
        ({"subjects": ["kaa.>", "orders.>"]}, set()),
        pytest.param(
            {"subjects": ["raw.>"], "subject_transform": {"src": "raw.>", "dest": "kaa.>"}},
            set(),
            marks=needs_nats(2, 10),
        ),
        pytest.param(
            {"subject_transform": {"src": "kaa.v1.events.*.>", "dest": "kept.$1.>"}},
            {"subjects-transformed"},
            marks=needs_nats(2, 10),
        ),
        ({"subject_transform": {"src": "orders.*", "dest": "kept.{{wildcard(1)}}"}}, set()),
        ({"republish": {"src": ">", "dest": "copies.>"}}, set()),
        ({"deny_delete": True, "deny_purge": True}, set()),
        ({"max_msg_size": 1000}, {"message-size-limit"}),
        ({"max_msg_size": 1 << 20}, set()),
        ({"max_consumers": 1}, {"consumer-limit-to-replay"}),
    ],
    ids=str,
)
async def test_doctor_finds_unsuitable_stream_configurations(
    config: dict[str, Any], found: set[str], nats_url: str, nats_client: Client, database_url: str
) -> None:
    await create(nats_client, "STREAM.CREATE", {"subjects": list(subjects.filters()), **config})
    assert await named(nats_url, database_url) == found


@needs_nats(2, 10)
async def test_doctor_finds_originators_without_messages(scene: Scene, event: Event) -> None:
    await scene.publish(event("connectivity.connected", "e", originator="kpc"))
    assert await named(scene.nats_url, scene.database_url, originators="kpc") == set()
    assert await named(scene.nats_url, scene.database_url, originators="kpc,epr") == {"no-message-matches"}


REVISIONS = ("kaa-2017-04", "kaa-2020-05")
each_revision = pytest.mark.parametrize(
    ("spoken", "other"), [REVISIONS, REVISIONS[::-1]], ids=[f"{name} is spoken" for name in REVISIONS]
)


def samples(revision: str) -> list[Wire]:
    """A message of each type of a revision."""
    return [wire(kind) for kind in KINDS if kind.revision == revision]


def wire(kind: Kind) -> Wire:
    message = kind.message(kind.payload())
    return message.subject, message.payload


async def said(scene: Scene, name: str, **settings: str) -> str:
    """Return the text of a finding."""
    found = (await examination(scene.nats_url, scene.database_url, **settings)).findings
    (what,) = [finding.what for finding in found if finding.name == name]
    return what


@each_revision
async def test_doctor_finds_a_stream_of_another_revision(scene: Scene, spoken: str, other: str) -> None:
    await scene.publish(*samples(spoken))
    assert await named(scene.nats_url, scene.database_url, revision=spoken) == set()
    assert await named(scene.nats_url, scene.database_url, revision=other) == {"other-revision"}
    assert f"of revision {spoken}, " in await said(scene, "other-revision", revision=other)


@each_revision
async def test_stream_with_a_single_event_type_reveals_its_revision(scene: Scene, spoken: str, other: str) -> None:
    await scene.publish(*[wire(Kind(spoken, "connectivity.connected"))] * 3)
    assert await named(scene.nats_url, scene.database_url, revision=spoken) == set()
    assert await named(scene.nats_url, scene.database_url, revision=other) == {"other-revision"}


@each_revision
async def test_two_messages_do_not_reveal_the_revision_of_a_stream(scene: Scene, spoken: str, other: str) -> None:
    await scene.publish(*samples(spoken)[:2])
    assert await named(scene.nats_url, scene.database_url, revision=other) == set()


@each_revision
async def test_doctor_finds_publishers_that_switched_to_another_revision(scene: Scene, spoken: str, other: str) -> None:
    await scene.publish(*samples(other) * 20, *samples(spoken) * 2)
    assert await named(scene.nats_url, scene.database_url, revision=spoken) == set()
    assert await named(scene.nats_url, scene.database_url, revision=other) == {"other-revision"}


async def test_malformed_messages_do_not_hide_the_revision(scene: Scene) -> None:
    noise = [
        (subjects.build("kpc", "config.updated"), b"\xff" * 40),
        ("kaa.v1.events.kpc.endpoint.config.unheard", b""),
    ]
    await scene.publish(*samples("kaa-2020-05"), *noise)
    assert await named(scene.nats_url, scene.database_url) == {"other-revision"}


async def test_samples_are_of_the_originators_of_the_settings(scene: Scene) -> None:
    await scene.publish(*samples("kaa-2020-05"))
    theirs = {"originators": "epr", "consumer": "other"}
    assert "other-revision" not in await named(scene.nats_url, scene.database_url, **theirs)
    assert "other-revision" in await named(scene.nats_url, scene.database_url, originators="epr,kpc")


MEASURED = (subjects.build("dcx", "data-collection.data-points-received.temperature"), b"")
METRICS = (subjects.build("tsa", "data-collection.data-points-received.humidity"), b"")


async def test_foreign_messages_are_reported_if_they_are_the_majority(scene: Scene, event: Event) -> None:
    await scene.publish(*[event("connectivity.connected", "e")] * 2, MEASURED, METRICS)
    assert await named(scene.nats_url, scene.database_url) == set()
    await scene.publish(*[METRICS] * 4)
    assert await named(scene.nats_url, scene.database_url) == {"foreign-messages"}
    assert await said(scene, "foreign-messages") == (
        "2 of the 8 messages in the stream (25.0%) match the daemon's filters; "
        "the others: 6 of kaa.v1.events.*.endpoint.data-collection.>"
    )


async def test_events_of_other_originators_are_foreign(scene: Scene, event: Event) -> None:
    await scene.publish(
        event("connectivity.connected", "e"), *[event("connectivity.connected", "e", originator="cmx")] * 2
    )
    assert (await said(scene, "foreign-messages", originators="kpc")).endswith("2 of kaa.v1.events.cmx.endpoint.>")


async def test_foreign_subjects_are_named_by_their_prefixes(nats_client: Client, scene: Scene, event: Event) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.update_stream(name=STREAM, subjects=[*subjects.filters(), "orders.>"])
    others = ["orders.a", *(f"orders.eu.kyiv.{number}" for number in range(4))]
    await scene.publish(event("connectivity.connected", "e"), *((subject, b"") for subject in others))
    assert (await said(scene, "foreign-messages")).endswith("4 of orders.eu.kyiv.>, 1 of orders.a")


async def test_a_stream_of_very_many_subjects_is_counted_without_listing_them(
    scene: Scene, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "_SUBJECTS_LISTED", 2)
    await scene.publish(event("connectivity.connected", "e"), MEASURED, METRICS)
    assert await said(scene, "foreign-messages") == (
        "1 of the 3 messages in the stream (33.3%) match the daemon's filters; "
        "the others have too many subjects to list"
    )


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"deliver_subject": "elsewhere", "ack_policy": "all"}, {"consumer-taken"}),
        ({"ack_policy": "explicit"}, {"consumer-taken"}),
        ({"ack_policy": "all", "filter_subject": "kaa.v1.events.kpc.endpoint.>"}, {"consumer-taken"}),
        ({"ack_policy": "all", "headers_only": True}, {"consumer-unusable"}),
        pytest.param(
            {"ack_policy": "all", "pause_until": "2200-01-01T00:00:00Z"}, {"consumer-paused"}, marks=needs_nats(2, 11)
        ),
        ({"ack_policy": "all"}, set()),
    ],
    ids=str,
)
async def test_doctor_finds_unsuitable_consumer_configurations(
    config: dict[str, Any], found: set[str], nats_client: Client, scene: Scene
) -> None:
    ours = _filter_config(subjects.filters(groups=REVISION.groups, server_version=NATS_VERSION))
    config = {"durable_name": CONSUMER, **({} if "filter_subject" in config else ours), **config}
    await create(nats_client, f"CONSUMER.DURABLE.CREATE.{STREAM}", {"stream_name": STREAM, "config": config}, CONSUMER)
    assert await named(scene.nats_url, scene.database_url) == found


async def test_doctor_finds_a_shared_consumer(scene: Scene, other_database_url: str) -> None:
    daemon = scene.follow(url=other_database_url)
    await daemon.hears("active")
    assert await named(scene.nats_url, scene.database_url) == {"consumer-shared"}
    assert await named(scene.nats_url, other_database_url) == set()


async def create(client: Client, what: str, config: dict[str, Any], name: str = STREAM) -> None:
    """Create an object with fields that the client library does not know."""
    request = {"name": name, **config} if what == "STREAM.CREATE" else config
    reply = await client.request(f"$JS.API.{what}.{name}", json.dumps(request).encode())
    assert "error" not in json.loads(reply.data), reply.data


@pytest.fixture
def serve(server_folder: Path) -> Iterator[Callable[..., EmbeddedNats]]:
    """Starts NATS servers with the configuration of a test."""
    with ExitStack() as stack:
        yield lambda config, name="nats": stack.enter_context(servers.nats_in(server_folder / name, config=config))


async def test_doctor_finds_an_account_without_jetstream(serve: Callable[..., EmbeddedNats], database_url: str) -> None:
    server = serve("accounts: {fleet: {users: [{user: u, password: p}]}}")
    assert await named(server.url.replace("//", "//u:p@"), database_url) == {"jetstream-off"}
    assert await named(server.url.replace("//", "//u:wrong@"), database_url) == {"nats-refused"}


LONG = (broker_inspection.LONG_ACKNOWLEDGEMENT,) if NATS_VERSION >= (2, 14) else ()
EVERYTHING = tuple(
    need.format(stream=STREAM, consumer=CONSUMER)
    for need in (
        *broker_inspection.DAEMON_NEEDS,
        *broker_inspection.REPLAY_NEEDS,
        *LONG,
    )
)


async def test_doctor_names_exactly_the_missing_permissions(
    serve: Callable[..., EmbeddedNats], database_url: str
) -> None:
    users = ["{user: admin, password: p}", user("all", EVERYTHING), user("wide", ["$JS.API.>", "$JS.ACK.>"])]
    lacking = {
        f"without-{number}": [one for one in EVERYTHING if one != missing] for number, missing in enumerate(EVERYTHING)
    }
    # The permission for every name includes that for one.
    covered = {one.removesuffix(CONSUMER) + "*" for one in EVERYTHING if one.endswith(CONSUMER)} & set(EVERYTHING)
    users += [user(name, permissions) for name, permissions in lacking.items()]
    users += [user("no-inbox", EVERYTHING, inbox="_INBOX_elsewhere.>")]
    server = serve(f"accounts: {{fleet: {{jetstream: enabled, users: [{', '.join(users)}]}}}}")

    def url(name: str) -> str:
        return server.url.replace("//", f"//{name}:p@")

    async with await nats.connect(url("admin")) as admin:
        await admin.jetstream().add_stream(name=STREAM, subjects=list(subjects.filters()))
    assert await named(url("all"), database_url) == await named(url("wide"), database_url) == set()
    for number, missing in enumerate(EVERYTHING):
        found = (await examination(url(f"without-{number}"), database_url)).findings
        complaints = [finding for finding in found if finding.name not in OF_THE_SERVERS]
        if missing.removesuffix(CONSUMER) + "*" in covered and missing.endswith(CONSUMER):
            assert complaints == []
            continue
        (complaint,) = complaints
        to_replay = number >= len(broker_inspection.DAEMON_NEEDS)
        expected = "nats-permissions-to-replay" if to_replay else "nats-permissions"
        long = LONG and number == len(EVERYTHING) - 1
        assert complaint.name == ("nats-permissions-to-acknowledge" if long else expected)
        assert complaint.what == f"the NATS user may not use: {missing}"
    assert await named(url("no-inbox"), database_url) == {"nats-permissions"}


def user(name: str, permissions: Any, inbox: str = "_INBOX.>") -> str:
    allowed = ", ".join(f'"{subject}"' for subject in permissions)
    return f'{{user: {name}, password: p, permissions: {{publish: [{allowed}], subscribe: ["{inbox}"]}}}}'


async def test_doctor_finds_a_single_replica_in_a_cluster(
    serve: Callable[..., EmbeddedNats], database_url: str, eventually: Eventually
) -> None:
    ports = free_ports(2)
    nodes = [
        serve(
            f'server_name: s{own}, cluster {{name: c, listen: "127.0.0.1:{ports[own]}", '
            f'routes: ["nats://127.0.0.1:{ports[1 - own]}"]}}',
            f"nats{own}",
        )
        for own in (0, 1)
    ]
    async with await nats.connect(nodes[0].url) as client:
        jetstream = client.jetstream(timeout=1)

        async def is_created() -> bool:
            try:
                await jetstream.add_stream(name=STREAM, subjects=list(subjects.filters()))
            except (APIError, nats.errors.TimeoutError):
                return False  # the cluster has no leader yet
            return True

        await eventually(is_created)
        assert await named(nodes[0].url, database_url) == {"one-replica"}

        async def is_updated() -> bool:
            try:
                await jetstream.update_stream(name=STREAM, subjects=list(subjects.filters()), num_replicas=2)
            except (APIError, nats.errors.TimeoutError):
                return False  # the other node is not known yet
            return True

        async def is_led() -> bool:
            try:
                cluster = (await jetstream.stream_info(STREAM)).cluster
            except (APIError, nats.errors.TimeoutError):
                return False  # the two nodes elect a leader
            return bool(cluster and cluster.leader)

        await eventually(is_updated)
        await eventually(is_led)
        assert await named(nodes[0].url, database_url) == set()


@needs_nats(2, 10)
@pytest.mark.parametrize(
    ("sync", "found"), [("", {"lazy-sync"}), ("sync_interval: 10s", {"lazy-sync"}), ("sync_interval: always", set())]
)
async def test_doctor_finds_a_server_that_syncs_lazily(
    sync: str, found: set[str], server_folder: Path, serve: Callable[..., EmbeddedNats], database_url: str
) -> None:
    server = serve(f'http: "127.0.0.1:-1"\njetstream {{store_dir: "{server_folder}/nats"; {sync}}}')
    (ports,) = (server_folder / "nats").glob("*.ports")
    monitoring = json.loads(ports.read_text())["monitoring"][0]
    async with await nats.connect(server.url) as client:
        await client.jetstream().add_stream(name=STREAM, subjects=list(subjects.filters()))
    assert await named(server.url, database_url, monitoring) == found
    assert (await examination(server.url, database_url, monitoring)).unseen == ()


async def test_doctor_lists_what_it_could_not_inspect(scene: Scene) -> None:
    for monitoring in (None, "http://127.0.0.1:1"):
        unseen = (await examination(scene.nats_url, scene.database_url, monitoring)).unseen
        (sync,) = (what for what in unseen if "clock" not in what)
        assert "sync_interval" in sync


async def test_doctor_finds_a_pooler_in_transaction_mode(scene: Scene, server_folder: Path) -> None:
    async with pooled(scene.database_url, server_folder) as url:
        assert await named(scene.nats_url, url) == {"pooler"}


@asynccontextmanager
async def another_database(server: EmbeddedPostgres, query: Query, name: str, options: str) -> AsyncIterator[str]:
    await query(server.url, f"CREATE DATABASE {name} {options}")
    yield server.url_of(name)
    await query(server.url, f"DROP DATABASE {name} WITH (FORCE)")


async def test_doctor_finds_an_unsuitable_encoding(
    nats_url: str, stream: str, postgres_server: EmbeddedPostgres, query: Query
) -> None:
    options = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    async with another_database(postgres_server, query, "latin", options) as url:
        assert await named(nats_url, url, stream=stream) == {"encoding", "not-migrated"}


async def test_doctor_finds_asynchronous_commits(scene: Scene) -> None:
    ((name,),) = await scene.query("SELECT current_database()")
    await scene.query(f"ALTER DATABASE {name} SET synchronous_commit = off")
    assert await named(scene.nats_url, scene.database_url) == {"synchronous-commit-off"}


@pytest.fixture
async def role_url(database_url: str, query: Query) -> AsyncIterator[str]:
    """The URL of a role that may read the whole database and write nothing."""
    name = database_url.partition("?")[0].rpartition("/")[2]
    await query(database_url, f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    await query(database_url, "CREATE ROLE onlooker LOGIN")
    await query(database_url, f"GRANT CONNECT ON DATABASE {name} TO onlooker")
    await query(database_url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO onlooker")
    yield database_url.replace("postgres@", "onlooker@")
    await query(database_url, "DROP OWNED BY onlooker")
    await query(database_url, "DROP ROLE onlooker")


async def test_doctor_names_every_missing_privilege(scene: Scene, role_url: str) -> None:
    found = {finding.name: finding.what for finding in (await examination(scene.nats_url, role_url)).findings}
    assert set(found) - OF_THE_SERVERS == {"privileges", "privileges-to-rebuild"}
    lacked = found["privileges"].removeprefix("the role lacks ").split(", ")
    assert [one for one in lacked if not one.startswith("TEMPORARY on database")] == [
        f"{privilege} on {table}"
        for table in ("endpoint_state", "projector_checkpoint", "dead_letter")
        for privilege in ("INSERT", "UPDATE")
    ]
    assert len(lacked) == 7
    assert found["privileges-to-rebuild"] == "the role lacks CREATE on schema public, DELETE on endpoint_state"
    await scene.query("REVOKE ALL ON projector_checkpoint, projector_migration FROM onlooker")
    assert await named(scene.nats_url, role_url) == {"privileges", "privileges-to-rebuild"}
    await scene.query("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    (said,) = [
        finding.what
        for finding in (await examination(scene.nats_url, role_url)).findings
        if finding.name == "privileges"
    ]
    assert "USAGE on the schema of the tables" in said


async def test_doctor_tells_a_missing_schema_from_a_missing_privilege(scene: Scene) -> None:
    ((name,),) = await scene.query("SELECT current_database()")
    await scene.query(f"ALTER DATABASE {name} SET search_path = nowhere")
    assert await named(scene.nats_url, scene.database_url) == {"schema-missing"}


@pytest.mark.parametrize("seconds", [5.0, -5.0])
async def test_doctor_finds_a_wrong_local_clock(seconds: float, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for inspection in (broker_inspection, database_inspection):
        monkeypatch.setattr(inspection, "time", lambda: time.time() + seconds)
    found = (await examination(scene.nats_url, scene.database_url)).findings
    (said,) = [finding.what for finding in found if finding.name == "clock-skew"]
    assert said.count("behind" if seconds > 0 else "ahead") == (2 if NATS_VERSION >= (2, 10) else 1)


async def test_doctor_finds_rows_of_other_rules_and_of_another_stream(
    scene: Scene, nats_client: Client, event: Event
) -> None:
    await scene.publish(event("connectivity.connected", "e"), event("connectivity.connected", "e"))
    await scene.fold()
    assert await named(scene.nats_url, scene.database_url, originators="kpc", consumer="other") == {"rules-changed"}
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="OTHER", subjects=["other.>"])
    assert await named(scene.nats_url, scene.database_url, stream="OTHER") == {"rules-changed", "subjects-missing"}
    await jetstream.delete_stream(STREAM)
    await jetstream.add_stream(name=STREAM, subjects=list(subjects.filters()))
    assert await named(scene.nats_url, scene.database_url) == {"stream-replaced"}


async def test_doctor_finds_events_that_left_the_stream_unfolded(
    scene: Scene, nats_client: Client, event: Event
) -> None:
    await scene.publish(event("connectivity.connected", "e"))
    await scene.fold()
    last = await scene.publish(*[event("connectivity.connected", "e")] * 3)
    await nats_client.jetstream().purge_stream(STREAM, seq=last)
    assert await named(scene.nats_url, scene.database_url) == {"events-lost", "beginning-gone"}
    await scene.fold(accept_gap=True)
    assert await named(scene.nats_url, scene.database_url) == {"beginning-gone"}


async def test_daemon_restores_a_consumer_whose_ack_policy_was_changed(
    scene: Scene, nats_client: Client, event: Event
) -> None:
    await scene.publish(event("connectivity.connected", "e"))
    await scene.fold()
    jetstream = nats_client.jetstream()
    ours = (await jetstream.consumer_info(STREAM, CONSUMER)).config
    await jetstream.delete_consumer(STREAM, CONSUMER)
    await jetstream.add_consumer(
        STREAM, ConsumerConfig(durable_name=CONSUMER, description=ours.description, ack_policy=AckPolicy.EXPLICIT)
    )
    assert await named(scene.nats_url, scene.database_url) == set()
    await scene.publish(event("connectivity.connected", "e"))
    await scene.fold()
    assert await scene.position() == 2
