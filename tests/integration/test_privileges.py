"""The daemon works with these privileges, and fails without any one of them; docs/how-to/connect.md lists them."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from projector.dev.embedded import EmbeddedNats
from projector.dev.simulation import Simulation, simulate
from projector.errors import DatabaseRefusedError, FatalError, NotMigratedError, NotPermittedError
from projector.queries import inspection as database_inspection
from projector.runtime import Projector
from projector.settings import Settings, load
from projector.stream import inspection as broker_inspection
from projector.stream import subjects
from tests.support import servers
from tests.support.fixtures import Event, Eventually, Query, Wire
from tests.support.monitored import watched
from tests.support.scene import Scene

STREAM = "KAA_ENDPOINT_EVENTS"
CONSUMER = "endpoint-state-projector"

CONNECT = (Path(__file__).parents[2] / "docs" / "how-to" / "connect.md").read_text(encoding="utf-8")

GRANTS = """
GRANT CONNECT ON DATABASE fleet TO projector;
GRANT TEMPORARY ON DATABASE fleet TO projector;
GRANT USAGE ON SCHEMA public TO projector;
GRANT SELECT ON projector_migration TO projector;
GRANT SELECT ON endpoint_state TO projector;
GRANT INSERT ON endpoint_state TO projector;
GRANT UPDATE ON endpoint_state TO projector;
GRANT SELECT ON projector_checkpoint TO projector;
GRANT INSERT ON projector_checkpoint TO projector;
GRANT UPDATE ON projector_checkpoint TO projector;
GRANT SELECT ON dead_letter TO projector;
GRANT INSERT ON dead_letter TO projector;
GRANT UPDATE ON dead_letter TO projector;
"""
FOR_CHANGES = """
GRANT INSERT ON endpoint_change TO projector;
GRANT EXECUTE ON FUNCTION endpoint_change_maintain(interval) TO projector;
"""
FOR_PUBLISHING = """
GRANT SELECT ON endpoint_change TO projector;
GRANT SELECT ON projector_feed TO projector;
GRANT INSERT ON projector_feed TO projector;
GRANT UPDATE ON projector_feed TO projector;
"""
ONLY_FOR_THE_PAGE = """
GRANT SELECT ON endpoint_change TO projector;
GRANT SELECT ON endpoint_session TO projector;
"""
ONLY_FOR_REBUILD = """
GRANT CREATE ON SCHEMA public TO projector;
GRANT DELETE ON endpoint_state TO projector;
"""

PERMISSIONS = (
    "$JS.API.STREAM.INFO.KAA_ENDPOINT_EVENTS",
    "$JS.API.STREAM.MSG.GET.KAA_ENDPOINT_EVENTS",
    "$JS.API.CONSUMER.DURABLE.CREATE.KAA_ENDPOINT_EVENTS.endpoint-state-projector",
    "$JS.API.CONSUMER.INFO.KAA_ENDPOINT_EVENTS.endpoint-state-projector",
    "$JS.API.CONSUMER.DELETE.KAA_ENDPOINT_EVENTS.endpoint-state-projector",
    "$JS.API.CONSUMER.MSG.NEXT.KAA_ENDPOINT_EVENTS.endpoint-state-projector",
    "$JS.ACK.KAA_ENDPOINT_EVENTS.endpoint-state-projector.>",
)

PREFIX = "fleet"
TO_PUBLISH = (
    f"{PREFIX}.>",
    "$JS.API.STREAM.INFO.KAA_ENDPOINT_EVENTS_CHANGES",
    "$JS.API.STREAM.MSG.GET.KAA_ENDPOINT_EVENTS_CHANGES",
)


def one_by_one(grants: str) -> list[str]:
    """Each privilege on each object, as a separate statement."""
    found = re.findall(r"GRANT ([A-Z, ]+) ON ((?:DATABASE |SCHEMA |FUNCTION )?)([a-z_, ()]+) TO projector;", grants)
    return [
        f"GRANT {privilege} ON {kind}{name} TO projector"
        for privileges, kind, names in found
        for privilege in privileges.split(", ")
        for name in names.split(", ")
    ]


def test_docs_list_these_privileges() -> None:
    everything = GRANTS + FOR_CHANGES + FOR_PUBLISHING + ONLY_FOR_THE_PAGE + ONLY_FOR_REBUILD
    assert set(one_by_one(CONNECT)) == set(one_by_one(everything))
    (publishing,) = re.findall(r"To \[publish changes\].*?```text\n(.*?)```", CONNECT, re.DOTALL)
    assert re.findall(r'"(.+)"', publishing) == list(TO_PUBLISH)
    block = re.search(r"permissions: \{.*?\n\}", CONNECT, re.DOTALL)
    assert block
    documented = re.findall(r'"(\$JS[^"]+)"', block[0])
    # A rebuild uses consumers whose names the server generates.
    wider = {subject.removesuffix(CONSUMER) + "*" for subject in PERMISSIONS if subject.endswith(CONSUMER)}
    with_feature_flag = broker_inspection.LONG_ACKNOWLEDGEMENT.format(stream=STREAM, consumer=CONSUMER)
    only_for_some = {f"$JS.API.CONSUMER.CREATE.{STREAM}", with_feature_flag}
    assert only_for_some < set(documented)
    assert set(documented) - wider - only_for_some <= set(PERMISSIONS)
    assert all(subject in documented or subject.removesuffix(CONSUMER) + "*" in documented for subject in PERMISSIONS)
    assert 'subscribe: ["_INBOX.>"]' in block[0]


def test_doctor_checks_these_privileges() -> None:
    def granted(needs: Mapping[str, Iterable[str]]) -> set[str]:
        return {
            f"GRANT {privilege} ON {table} TO projector"
            for table, privileges in needs.items()
            for privilege in privileges
        }

    elsewhere = {one for one in one_by_one(GRANTS + ONLY_FOR_REBUILD) if " ON DATABASE " in one or " ON SCHEMA " in one}
    assert granted(database_inspection.CHANGES_NEED) == set(one_by_one(FOR_CHANGES))
    assert granted(database_inspection.PUBLISHING_NEEDS) == set(one_by_one(FOR_PUBLISHING))
    assert granted(database_inspection.DAEMON_NEEDS) == set(one_by_one(GRANTS)) - elsewhere
    assert granted(database_inspection.REBUILD_NEEDS) == set(one_by_one(ONLY_FOR_REBUILD)) - elsewhere
    names = {"stream": STREAM, "consumer": CONSUMER}
    assert [need.format(**names) for need in broker_inspection.DAEMON_NEEDS] == list(PERMISSIONS)


@pytest.fixture
async def grant(database_url: str, query: Query) -> AsyncIterator[Callable[[list[str]], Awaitable[str]]]:
    """Creates a role with the privileges of some statements; returns its URL."""
    database = database_url.partition("?")[0].rpartition("/")[2]
    role = f"projector_{secrets.token_hex(4)}"

    async def grant(statements: list[str]) -> str:
        await query(database_url, f"CREATE ROLE {role} LOGIN")
        await query(database_url, f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        await query(database_url, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
        for statement in statements:
            here = statement.replace("DATABASE fleet", f"DATABASE {database}")
            await query(database_url, here.replace("TO projector", f"TO {role}"))
        return database_url.replace("postgres@", f"{role}@")

    yield grant
    await query(database_url, f"DROP OWNED BY {role}")
    await query(database_url, f"DROP ROLE {role}")


@pytest.fixture
async def eventful(scene: Scene, event: Event) -> Scene:
    """A stream that makes the daemon write into every table."""
    unreadable = (subjects.build("kpc", "connectivity.connected"), b"not Avro")
    await scene.publish(event("connectivity.connected", "e"), unreadable, event("connectivity.connected", "e"))
    return scene


async def test_the_daemon_works_with_exactly_these_privileges_in_postgres(
    eventful: Scene, grant: Callable[[list[str]], Awaitable[str]]
) -> None:
    await eventful.fold(url=await grant(one_by_one(GRANTS)))
    assert len(await eventful.table()) == len(await eventful.dead_letters()) == 1


@pytest.mark.parametrize("missing", one_by_one(GRANTS))
async def test_daemon_fails_without_any_one_privilege(
    missing: str, eventful: Scene, grant: Callable[[list[str]], Awaitable[str]]
) -> None:
    url = await grant([one for one in one_by_one(GRANTS) if one != missing])
    # Without USAGE on the schema, the tables seem to be missing.
    refusal: type[FatalError] = DatabaseRefusedError
    said = "docs/how-to/connect.md"
    if "USAGE" in missing:
        refusal, said = (NotMigratedError, "projector init")
    with pytest.raises(refusal, match=said):
        await eventful.fold(url=url)


async def test_the_daemon_logs_changes_with_exactly_these_privileges(
    eventful: Scene, grant: Callable[[list[str]], Awaitable[str]]
) -> None:
    await eventful.fold(url=await grant(one_by_one(GRANTS + FOR_CHANGES)), changes="7d")
    assert await eventful.query("SELECT count(*) FROM endpoint_change") == [(2,)]


@pytest.mark.parametrize("missing", one_by_one(FOR_CHANGES))
async def test_the_log_of_changes_needs_each_of_its_privileges(
    missing: str, eventful: Scene, grant: Callable[[list[str]], Awaitable[str]]
) -> None:
    url = await grant([one for one in one_by_one(GRANTS + FOR_CHANGES) if one != missing])
    with pytest.raises(DatabaseRefusedError, match=r"docs/how-to/connect\.md"):
        await eventful.fold(url=url, changes="7d")


@pytest.mark.parametrize("missing", [None, *one_by_one(FOR_PUBLISHING)])
async def test_publishing_works_with_exactly_these_privileges(
    missing: str | None, eventful: Scene, nats_client: Client, grant: Callable[[list[str]], Awaitable[str]]
) -> None:
    await nats_client.jetstream().add_stream(name=f"{STREAM}_CHANGES", subjects=[f"{PREFIX}.>"])
    url = await grant([one for one in one_by_one(GRANTS + FOR_CHANGES + FOR_PUBLISHING) if one != missing])
    settings: dict[str, Any] = {"url": url, "changes": "7d", "publish": PREFIX}
    if missing is None:
        recorder = await eventful.fold(**settings)
        assert (recorder.published, recorder.failures) == (2, [])
    elif "endpoint_change" in missing:
        recorder = await eventful.fold(**settings)
        assert [type(failure) for failure in recorder.failures] == [DatabaseRefusedError]
    else:
        with pytest.raises(DatabaseRefusedError, match=r"docs/how-to/connect\.md"):
            await eventful.fold(**settings)


@pytest.mark.parametrize("missing", [None, *TO_PUBLISH])
async def test_publishing_works_with_exactly_these_permissions(
    missing: str | None, server_folder: Path, database_url: str, query: Query, event: Event
) -> None:
    permitted = [one for one in (*PERMISSIONS, *TO_PUBLISH) if one != missing]
    users = f"{{user: admin, password: p}}, {user('daemon', permitted)}"
    config = f"accounts: {{fleet: {{jetstream: enabled, users: [{users}]}}}}"
    with servers.nats_in(server_folder / "nats", config=config) as server:
        async with await nats.connect(server.url.replace("//", "//admin:p@")) as admin:
            jetstream = admin.jetstream()
            await jetstream.add_stream(name=STREAM, subjects=list(subjects.filters()))
            await jetstream.add_stream(name=f"{STREAM}_CHANGES", subjects=[f"{PREFIX}.>"])

            async def publish(*messages: Wire, headers: dict[str, str] | None = None) -> int:
                return max([(await jetstream.publish(*message, headers=headers)).seq for message in messages])

            scene = Scene(server.url.replace("//", "//daemon:p@"), database_url, STREAM, publish, query)
            await publish(event("connectivity.connected", "e"))
            recorder = await scene.fold(changes="7d", publish=PREFIX)
            assert await scene.position() == 1
            assert recorder.published == (missing is None)
            assert [type(failure) for failure in recorder.failures] == ([] if missing is None else [NotPermittedError])
            if missing is not None:
                assert missing.removesuffix(">") in str(recorder.failures[0])


@pytest.mark.parametrize("missing", [None, *one_by_one(ONLY_FOR_THE_PAGE)])
async def test_page_says_which_privileges_it_needs_for_sessions_and_changes(
    missing: str | None, eventful: Scene, grant: Callable[[list[str]], Awaitable[str]]
) -> None:
    permitted = [one for one in one_by_one(GRANTS + FOR_CHANGES + ONLY_FOR_THE_PAGE) if one != missing]
    async with watched(eventful, url=await grant(permitted), changes="7d") as daemon:
        await daemon.says("/api/endpoints/e", lambda answer: answer.code == 200)
        for name in ("sessions", "changes"):
            answer = await daemon.get(f"/api/endpoints/e/{name}")
            assert answer.code == 200
            assert bool(answer.json[name]) == (missing is None)
            assert answer.json["changes_state"] == ("on" if missing is None else "not-permitted")
            assert missing is None or "docs/how-to/connect.md" in answer.json["detail"]
        assert (await daemon.get("/api/endpoints/e/dead-letters")).code == 200


@pytest.fixture
def guarded_nats(server_folder: Path) -> Iterator[EmbeddedNats]:
    """A server with a user who has every permission that the daemon needs, and one user per missing permission."""
    users = ["{user: admin, password: p}", user("all", PERMISSIONS)]
    for number, missing in enumerate(PERMISSIONS):
        users.append(user(f"without-{number}", [one for one in PERMISSIONS if one != missing]))
    config = f"accounts: {{fleet: {{jetstream: enabled, users: [{', '.join(users)}]}}}}"
    with servers.nats_in(server_folder / "nats", config=config) as server:
        yield server


def user(name: str, permissions: Any) -> str:
    allowed = ", ".join(f'"{subject}"' for subject in permissions)
    return f'{{user: {name}, password: p, permissions: {{publish: [{allowed}], subscribe: ["_INBOX.>"]}}}}'


async def test_the_daemon_works_with_exactly_these_permissions_in_nats(
    guarded_nats: EmbeddedNats,
    database_url: str,
    query: Query,
    event: Event,
    eventually: Eventually,
) -> None:
    """Each time the consumer is at another position, and the stream holds the message at the checkpoint."""

    def url(name: str) -> str:
        return guarded_nats.url.replace("nats://", f"nats://{name}:p@")

    log = guarded_nats._log
    async with await nats.connect(url("admin")) as admin:
        jetstream = admin.jetstream()
        await jetstream.add_stream(name=STREAM, subjects=list(subjects.filters()))

        async def publish(*messages: Wire, headers: dict[str, str] | None = None) -> int:
            return max([(await jetstream.publish(*message, headers=headers)).seq for message in messages])

        scene = Scene(url("all"), database_url, STREAM, publish, query)
        for expected in (1, 2, 3):
            await publish(event("connectivity.connected", "e"))
            await scene.fold()
            assert await scene.position() == expected
            await displace(jetstream)
        await publish(event("connectivity.connected", "e"))
        await scene.fold()
        assert "Violation" not in log.read_text()

        async def everything_is_acknowledged() -> bool:
            consumer = await jetstream.consumer_info(STREAM, CONSUMER)
            return bool(consumer.ack_floor.stream_seq == 4)

        await eventually(everything_is_acknowledged)

        for number, missing in enumerate(PERMISSIONS):
            await displace(jetstream)
            await publish(event("connectivity.connected", "e"))
            daemon = scene.follow(nats_url=url(f"without-{number}"))
            with pytest.raises(NotPermittedError, match=re.escape(missing.removesuffix(">"))) as refused:
                await daemon.end()
            assert str(refused.value).endswith("docs/how-to/connect.md lists")


async def status(settings: Settings) -> None:
    await Projector(settings).status()


async def publish_events(settings: Settings) -> None:
    await simulate(settings, Simulation(endpoints=5, seed=1, events=50), asyncio.Event())


@pytest.mark.parametrize(
    ("command", "permissions", "complaint"),
    [
        (status, 'publish: ["_INBOX.>"]', f"publish to '$JS.API.STREAM.INFO.{STREAM}'"),
        (status, 'subscribe: {deny: ">"}', "subscribe to '_INBOX."),
        (publish_events, 'publish: ["$JS.API.>"]', "publish to 'kaa.v1.events."),
    ],
)
async def test_missing_permission_is_reported_without_a_timeout(
    command: Callable[[Settings], Awaitable[object]],
    permissions: str,
    complaint: str,
    server_folder: Path,
    database_url: str,
) -> None:
    users = f"{{user: admin, password: p}}, {{user: guest, password: p, permissions: {{{permissions}}}}}"
    config = f"accounts: {{fleet: {{jetstream: enabled, users: [{users}]}}}}"
    with servers.nats_in(server_folder / "nats", config=config) as server:

        def settings(name: str) -> Settings:
            flags = {"nats_url": server.url.replace("//", f"//{name}:p@"), "database_url": database_url}
            return load(flags, config=None, fallback=None)

        await Projector(settings("admin")).init()
        with pytest.raises(NotPermittedError, match=re.escape(complaint)):
            await command(settings("guest"))


async def displace(jetstream: JetStreamContext) -> None:
    """Move the daemon's consumer to a wrong position."""
    with contextlib.suppress(NotFoundError):
        await jetstream.delete_consumer(STREAM, CONSUMER)
    config = ConsumerConfig(durable_name=CONSUMER, ack_policy=AckPolicy.ALL, filter_subject=subjects.filters()[0])
    await jetstream.add_consumer(STREAM, config)
