"""The snippets of README.md and the how-to guides, run on real servers."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import nats
import pytest

from projector.dev.fleet import Fleet
from projector.dev.simulation import Simulation, simulate
from projector.domain.messages import Selection
from projector.errors import DatabaseRefusedError
from projector.runtime import Projector
from projector.settings import Settings, load
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.support import servers
from tests.support.fixtures import Eventually, Publish, Query
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHANGES = (ROOT / "docs" / "how-to" / "changes.md").read_text(encoding="utf-8")
CONNECT = (ROOT / "docs" / "how-to" / "connect.md").read_text(encoding="utf-8")
KAA = (ROOT / "docs" / "how-to" / "kaa.md").read_text(encoding="utf-8")
MONITOR = (ROOT / "docs" / "how-to" / "monitor.md").read_text(encoding="utf-8")


def blocks(written: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", written, flags=re.MULTILINE | re.DOTALL)


def settings_with(**settings: str) -> Settings:
    return load(settings | {"http": "off"}, config=None, fallback=None)


async def fold(projector: Projector) -> None:
    await projector.run(until_caught_up=True)


# The queries.

QUERIES = blocks(README, "sql")
EVENTS = 4000


@pytest.fixture
async def fleet(nats_url: str, stream: str, database_url: str, codec: Codec, publish: Publish) -> Projector:
    """The last half hour of a fleet's events, in the table."""
    span = timedelta(minutes=30)
    began = datetime.now(UTC) - span
    life = Fleet(endpoints=50, seed=1, start_at=int(began.timestamp() * 1000), interval_ms=span.seconds * 1000 / EVENTS)
    await publish(
        *(
            (subjects.build(event.originator, event.event_type), codec.encode(event.event_type, event.record))
            for event in islice(life.events(), EVENTS)
        )
    )
    projector = Projector(settings_with(nats_url=nats_url, stream=stream, database_url=database_url, changes="7d"))
    await fold(projector)
    return projector


async def test_every_readme_query_finds_rows(fleet: Projector) -> None:
    assert len(QUERIES) == 7
    for query in QUERIES:
        answer = await fleet.sql(query)
        assert answer.rows, query
        assert len(set(answer.columns)) == len(answer.columns)


async def test_first_readme_query_is_that_of_the_demo(fleet: Projector) -> None:
    (statement,) = re.findall(r'^projector sql "(.*)"$', README, flags=re.MULTILINE)
    assert f'"{statement}"' in (ROOT / "projector" / "dev" / "view.py").read_text(encoding="utf-8")
    answer = await fleet.sql(statement)
    assert sum(count for _, count in answer.rows) == 50


@pytest.mark.parametrize("query", QUERIES)
def test_readme_query_fits_in_double_quotes(query: str) -> None:
    assert not set('"$`\\!') & set(query)


async def test_every_query_about_changes_runs(fleet: Projector, database_url: str, query: Query) -> None:
    # As if the log had begun before the moments that the page asks for.
    await query(database_url, "UPDATE projector_checkpoint SET changes_since = now() - interval '2 days'")
    ((some_id,),) = (await fleet.sql("SELECT endpoint_id FROM endpoint_change LIMIT 1")).rows
    ((now,),) = (await fleet.sql("SELECT now()")).rows
    queries = blocks(CHANGES, "sql")
    assert len(queries) == 10
    for sql in queries:
        answer = await fleet.sql(sql.replace("'e1'", f"'{some_id}'").replace("'2026-11-26 02:00:00+00'", f"'{now}'"))
        assert len(set(answer.columns)) == len(answer.columns)


# The privileges.

ALL = Selection()
FOREIGN = "INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at) VALUES ('foreign', 1, now())"


@pytest.fixture
def guarded_nats_url(server_folder: Path) -> Iterator[str]:
    """A server with the user that docs/how-to/connect.md describes, and one with every permission."""
    (permissions,) = [block for block in blocks(CONNECT, "text") if block.startswith("permissions")]
    users = f"{{user: admin, password: a}}, {{user: projector, password: p, {permissions}}}"
    config = f"accounts: {{fleet: {{jetstream: enabled, users: [{users}]}}}}"
    with servers.nats_in(server_folder / "nats", config=config) as server:
        yield server.url


@pytest.fixture
async def grant(empty_database_url: str, query: Query) -> AsyncIterator[Callable[[], Awaitable[tuple[str, str]]]]:
    """Makes the two roles that docs/how-to/connect.md describes, and returns their URLs."""
    suffix = secrets.token_hex(4)
    database = empty_database_url.partition("?")[0].rpartition("/")[2]
    roles = {name: f"{name}_{suffix}" for name in ("projector", "fleet_reader")}

    async def grant() -> tuple[str, str]:
        await query(empty_database_url, f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        await query(empty_database_url, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
        for block in [*blocks(CONNECT, "sql"), *blocks(MONITOR, "sql")]:
            statements = block.replace("DATABASE fleet ", f"DATABASE {database} ")
            for name, role in roles.items():
                statements = re.sub(rf"(ROLE|TO) {name}\b", rf"\1 {role}", statements)
            for statement in filter(str.strip, statements.split(";")):
                await query(empty_database_url, statement)
        projector, reader = (empty_database_url.replace("postgres@", f"{role}@") for role in roles.values())
        return projector, reader

    yield grant
    for role in roles.values():
        await query(empty_database_url, f"DROP OWNED BY {role}")
        await query(empty_database_url, f"DROP ROLE {role}")


async def use_everything(
    guarded_nats_url: str,
    empty_database_url: str,
    grant: Callable[[], Awaitable[tuple[str, str]]],
    query: Query,
    eventually: Eventually,
) -> None:
    everything = guarded_nats_url.replace("nats://", "nats://admin:a@")
    owner = settings_with(nats_url=everything, database_url=empty_database_url)
    await Projector(owner).init()
    await simulate(owner, Simulation(endpoints=50, seed=1, events=500), asyncio.Event())

    projector_url, reader_url = await grant()
    guarded = guarded_nats_url.replace("nats://", "nats://projector:p@")
    projector = Projector(settings_with(nats_url=guarded, database_url=projector_url))

    async with await nats.connect(everything) as client:
        jetstream = client.jetstream()
        await jetstream.publish(subjects.build("kpc", "connectivity.connected"), b"not Avro")
        assert (await projector.status()).lag_messages == 501
        await fold(projector)

        async def everything_is_acknowledged() -> bool:
            consumer = await jetstream.consumer_info("KAA_ENDPOINT_EVENTS", "endpoint-state-projector")
            return consumer.ack_floor is not None and consumer.ack_floor.stream_seq == 501

        await eventually(everything_is_acknowledged)

    status = await projector.status()
    assert (status.checkpoint_seq, status.lag_messages, status.dead_letters) == (501, 0, 1)

    # The consumer is ahead of the checkpoint, and is deleted and created again.
    await query(empty_database_url, "TRUNCATE projector_checkpoint, endpoint_state, dead_letter")
    await fold(projector)
    await fold(projector)  # now there is a message at the checkpoint to compare

    retried = [one async for one in projector.retry_dead_letters(ALL)]
    assert [one.position for one in retried] == [501]
    await query(empty_database_url, FOREIGN)
    assert not (await projector.verify()).clean
    assert (await projector.rebuild()).differences.extra == 1
    assert (await projector.verify()).clean
    assert await projector.discard_dead_letters(ALL, "not Avro") == 1

    reader = Projector(settings_with(nats_url=guarded, database_url=reader_url))
    assert (await reader.status()).endpoints == status.endpoints
    assert (await reader.sql("select count(*) from endpoint_state")).rows[0][0] == status.endpoints
    assert await reader.dead_letters() == []
    with pytest.raises(DatabaseRefusedError, match="permission denied"):
        await reader.discard_dead_letters(ALL, "not mine")


async def test_documented_privileges_suffice_for_everything_but_init(
    guarded_nats_url: str,
    empty_database_url: str,
    grant: Callable[[], Awaitable[tuple[str, str]]],
    query: Query,
    eventually: Eventually,
) -> None:
    async with asyncio.timeout(5 * PATIENCE_S):  # NATS does not answer requests that it does not permit
        await use_everything(guarded_nats_url, empty_database_url, grant, query, eventually)


# The stream beside a Kaa installation.


async def test_stream_of_the_kaa_guide_stores_endpoint_events_and_no_time_series(
    server_folder: Path, database_url: str, eventually: Eventually
) -> None:
    (config,) = blocks(KAA, "json")
    single = json.dumps(json.loads(config) | {"num_replicas": 1}).encode()
    with servers.nats_in(server_folder / "nats") as server:
        settings = settings_with(nats_url=server.url, database_url=database_url, revision="kaa-2020-05")
        projector = Projector(settings)
        async with await nats.connect(server.url) as client:
            created = json.loads((await client.request("$JS.API.STREAM.CREATE.KAA_ENDPOINT_EVENTS", single)).data)
            assert "error" not in created
            codec = Codec("kaa-2020-05", ROOT / "schemas")
            life = Fleet(endpoints=20, seed=1, start_at=1, interval_ms=1, revision="kaa-2020-05")
            for event, _ in zip(life.events(), range(500), strict=False):
                payload = codec.encode(event.event_type, event.record)
                await client.publish(subjects.build(event.originator, event.event_type), payload)
                await client.publish(subjects.build("dcx", "data-collection.data-points-received.t"), b"21.5")
            await client.flush()

            async def all_are_stored() -> bool:
                state = (await client.jetstream().stream_info("KAA_ENDPOINT_EVENTS")).state
                return state.messages == 500

            await eventually(all_are_stored)  # the server stores after it has answered the flush
        await fold(projector)
        status = await projector.status()
        assert (status.checkpoint_seq, status.dead_letters, status.skipped) == (500, 0, {})
        findings = {finding.name for finding in (await projector.doctor()).findings}
        assert not {name for name in findings if name.startswith(("subjects", "stream", "no-message"))}
