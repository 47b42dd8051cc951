import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice, pairwise
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client
from sqlalchemy import BigInteger, Column, Text
from sqlalchemy.dialects.postgresql import JSONB

from projector.app.projection import Outcome
from projector.app.rebuild import Report
from projector.domain.checkpoint import Checkpoint
from projector.errors import DamagedRowError, RebuildRunningError, StreamTrimmedError, TransientError
from projector.runtime import Runtime
from projector.settings import load
from projector.simulator import Fleet
from projector.storage.columns import TIME
from projector.storage.tables import endpoint_state
from projector.stream import subjects
from projector.stream.codec import Codec

Wire = tuple[str, bytes]
Rows = list[tuple[Any, ...]]
Query = Callable[..., Awaitable[Rows]]
Publish = Callable[..., Awaitable[int]]
Event = Callable[..., Wire]

PATIENCE_S = 20
COLUMNS = {column.name: column for column in endpoint_state.columns if not column.primary_key}
TRANSIENT_TABLES = ("endpoint_state_rebuild", "dead_letter_rebuild")
MALFORMED = (subjects.build("kpc", "connectivity.connected"), b"\xff")
UNKNOWN = (subjects.build("kpc", "future.thing"), b"")


class Witness:
    """Hears what a daemon does, and lets a test wait for it."""

    def __init__(self) -> None:
        self.sessions = 0
        self.commits = 0
        self.position = 0
        self.waiting = False
        self.errors: list[TransientError] = []
        self._news = asyncio.Event()

    def standing_by(self) -> None:
        self.waiting = True
        self._news.set()

    def active(self, checkpoint: Checkpoint) -> None:
        self.sessions += 1
        self._reach(checkpoint)

    def committed(self, checkpoint: Checkpoint, outcome: Outcome, *, pending: int) -> None:
        del outcome, pending
        self.commits += 1
        self._reach(checkpoint)

    def caught_up(self, checkpoint: Checkpoint) -> None:
        self._reach(checkpoint)

    def retrying(self, error: TransientError) -> None:
        self.errors.append(error)

    async def until(self, condition: Callable[["Witness"], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    async def reached(self, position: int) -> None:
        await self.until(lambda witness: witness.position >= position)

    def _reach(self, checkpoint: Checkpoint) -> None:
        self.position = checkpoint.position
        self._news.set()


class Projector:
    """What the command line does, on one database."""

    def __init__(self, **settings: object) -> None:
        self._runtime = Runtime(load(settings, config=None, fallback=None))

    async def run(self) -> Witness:
        """Fold to the end of the stream."""
        witness = Witness()
        await self._runtime.live(witness, until_caught_up=True).run()
        return witness

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Witness]:
        """Follow the stream for the length of a block."""
        witness = Witness()
        live = self._runtime.live(witness)
        running = asyncio.create_task(live.run())
        try:
            yield witness
        finally:
            live.stop()
            await running

    async def rebuild(self, **options: Any) -> Report:
        return await self._runtime.rebuild(lambda *_: None, apply=True, **options)

    async def verify(self, **options: Any) -> Report:
        return await self._runtime.rebuild(lambda *_: None, apply=False, **options)


@pytest.fixture
def projector(nats_url: str, stream: str, database_url: str) -> Callable[..., Projector]:
    return lambda **settings: Projector(
        **{"nats_url": nats_url, "stream": stream, "database_url": database_url, "batch_size": 1000} | settings
    )


@pytest.fixture
def undisturbed(projector: Callable[..., Projector], other_database_url: str, query: Query) -> Callable[..., Any]:
    """What the table is after folding the whole stream once, in a database that nobody disturbs."""

    async def table() -> Rows:
        await projector(database_url=other_database_url, consumer="undisturbed").run()
        return await query(other_database_url, "SELECT * FROM endpoint_state ORDER BY endpoint_id")

    return table


@pytest.fixture
def table(database_url: str, query: Query) -> Callable[[], Awaitable[Rows]]:
    return lambda: query(database_url, "SELECT * FROM endpoint_state ORDER BY endpoint_id")


@pytest.fixture
def versions(database_url: str, query: Query) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Which version of each row is where: both change whenever a row is written."""

    async def versions() -> dict[str, Any]:
        rows = await query(database_url, "SELECT endpoint_id, xmin::text, ctid::text FROM endpoint_state")
        return {endpoint_id: version for endpoint_id, *version in rows}

    return versions


@pytest.fixture
def dead_letters(database_url: str, query: Query) -> Callable[[], Awaitable[Rows]]:
    return lambda: query(database_url, "SELECT position, state, attempts FROM dead_letter ORDER BY stream, position")


@pytest.fixture
def skipped(database_url: str, query: Query) -> Callable[[], Awaitable[str]]:
    async def skipped() -> str:
        return (await query(database_url, "SELECT skipped FROM projector_checkpoint"))[0][0]

    return skipped


@pytest.fixture
def held_at_its_end(database_url: str) -> Callable[[], Any]:
    """Keeps a rebuild in its last transaction, with everything changed and nothing committed, for a block."""

    @asynccontextmanager
    async def held(rebuild: Awaitable[Report]) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(database_url)
        task = asyncio.ensure_future(rebuild)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE dead_letter IN SHARE MODE")
                await waits(connection, "projector rebuild")
                yield connection
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await connection.close()

    return held


async def waits(connection: asyncpg.Connection, application: str) -> None:
    """Return when a connection waits for a lock that somebody else has."""
    asked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1 AND wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE_S):
        while not await connection.fetch(asked, application):
            pass


def figures(report: Report) -> tuple[int, int, int]:
    found = report.differences
    return found.missing, found.extra, found.different


def life(event: Event, endpoint_id: str) -> list[Wire]:
    """Events that leave no column of an endpoint empty."""
    return [
        event("lifecycle.registered", endpoint_id, appVersionName="kettle-1"),
        event("connectivity.connected", endpoint_id, appVersionName="kettle-1", originatorReplicaId="kpc-0"),
        event("connectivity.disconnected", endpointIds=[endpoint_id], originatorReplicaId="kpc-0"),
        event("lifecycle.appversion-updated", endpoint_id, appVersionName="kettle-2", previousAppVersionName="kettle-1"),
        event("metadata.updated", endpoint_id, added=["site", "room"]),
        event("config.new-available", endpoint_id, configId="c1"),
        event("config.updated", endpoint_id, configId="c1"),
        event("config.new-available", endpoint_id, configId="c2"),
    ]


def lives(event: Event, *endpoint_ids: str) -> list[Wire]:
    return [message for endpoint_id in endpoint_ids for message in life(event, endpoint_id)]


def fleet(codec: Codec, events: int, *, endpoints: int = 40) -> list[Wire]:
    """The first events in the life of a fleet."""
    simulated = Fleet(endpoints=endpoints, seed=7, start_at=1_700_000_000_000, interval_ms=100).events()
    return [
        (subjects.build(one.originator, one.event_type), codec.encode(one.event_type, one.record))
        for one in islice(simulated, events)
    ]


def forged(column: Column[Any]) -> str:
    """SQL for another value than the one in a column."""
    match column.type:
        case Text():
            return f"{column.name} || '?'"
        case BigInteger():
            return f"{column.name} + 1"
        case JSONB():
            return "'[[1]]'"
    assert column.type is TIME
    return f"{column.name} + interval '1 millisecond'"


def emptied(column: Column[Any]) -> str:
    """SQL for as little as a column can hold."""
    if column.nullable:
        return "NULL"
    match column.type:
        case Text():
            return "''"
        case BigInteger():
            return "0"
        case JSONB():
            return "'{}'"
    assert column.type is TIME
    return "'-infinity'"


async def test_a_rebuild_of_a_table_that_is_right_rewrites_no_row(
    projector: Callable[..., Projector], publish: Publish, codec: Codec, versions: Any, database_url: str, query: Query
) -> None:
    position = await publish(*fleet(codec, 500))
    await projector().run()
    before = await versions()
    for replay in (projector().verify, projector().rebuild):
        report = await replay()
        assert report.clean
        assert (report.replayed, report.position, report.differences.compared) == (500, position, len(before))
    assert await versions() == before
    assert await query(database_url, "SELECT to_regclass(name) FROM unnest($1::text[]) AS name", TRANSIENT_TABLES) == [
        (None,),
        (None,),
    ]


@pytest.mark.parametrize("corrupt", [forged, emptied])
async def test_one_wrong_cell_in_each_column_is_found_and_mended(
    corrupt: Callable[[Column[Any]], str],
    projector: Callable[..., Projector],
    publish: Publish,
    event: Event,
    table: Any,
    versions: Any,
    database_url: str,
    query: Query,
) -> None:
    await publish(*lives(event, *COLUMNS, "bystander"))
    await projector().run()
    right, before = await table(), await versions()
    for name, column in COLUMNS.items():
        await query(database_url, f"UPDATE endpoint_state SET {name} = {corrupt(column)} WHERE endpoint_id = $1", name)
    for replay in (projector().verify, projector().rebuild):
        report = await replay(show=100)
        assert figures(report) == (0, 0, len(COLUMNS))
        assert report.differences.by_column == dict.fromkeys(COLUMNS, 1)
        assert {row.endpoint_id: [*row.columns] for row in report.differences.shown} == {
            name: [name] for name in COLUMNS
        }
    assert await table() == right
    assert (await projector().verify()).clean
    assert (await versions())["bystander"] == before["bystander"]


async def test_rows_deleted_invented_and_renamed_are_found_and_mended(
    projector: Callable[..., Projector],
    publish: Publish,
    event: Event,
    table: Any,
    versions: Any,
    database_url: str,
    query: Query,
) -> None:
    await publish(*lives(event, "deleted", "renamed", "stays"))
    await projector().run()
    right, before = await table(), await versions()
    await query(database_url, "DELETE FROM endpoint_state WHERE endpoint_id = 'deleted'")
    await query(database_url, "UPDATE endpoint_state SET endpoint_id = 'name' WHERE endpoint_id = 'renamed'")
    await query(
        database_url,
        "INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at) VALUES ('invented', 3, now())",
    )
    for replay in (projector().verify, projector().rebuild):
        report = await replay(show=9)
        assert figures(report) == (2, 2, 0)
        assert [(row.endpoint_id, row.kind) for row in report.differences.shown] == [
            ("deleted", "missing"),
            ("invented", "extra"),
            ("name", "extra"),
            ("renamed", "missing"),
        ]
    assert await table() == right
    assert (await projector().verify()).clean
    assert (await versions())["stays"] == before["stays"]


async def test_one_endpoint_is_shown_with_the_messages_about_it_and_no_others(
    projector: Callable[..., Projector], publish: Publish, event: Event, database_url: str, query: Query
) -> None:
    await publish(*lives(event, "other", "asked"))
    await publish(event("connectivity.disconnected", endpointIds=["other", "asked"]))
    await projector().run()
    await query(database_url, "UPDATE endpoint_state SET app_version = 'kettle-9'")
    report = await projector().verify(endpoint_id="asked")
    assert figures(report) == (0, 0, 2)
    (shown,) = report.differences.shown
    assert (shown.endpoint_id, dict(shown.columns)) == ("asked", {"app_version": ("kettle-9", "kettle-2")})
    assert [mention.message.position for mention in report.mentions] == [*range(9, 18)]


async def test_what_users_hang_on_the_table_survives_and_the_trigger_fires_for_rows_that_differ_only(
    projector: Callable[..., Projector], publish: Publish, event: Event, database_url: str, query: Query
) -> None:
    await publish(*lives(event, "deleted", "wrong", "right"))
    await projector().run()
    for statement in (
        "CREATE VIEW versions AS SELECT endpoint_id, app_version FROM endpoint_state",
        "CREATE INDEX users_index ON endpoint_state (app_version)",
        "CREATE TABLE heard (what text, endpoint_id text)",
        """
        CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO heard VALUES (tg_op, coalesce(new.endpoint_id, old.endpoint_id)); RETURN NULL; END $$
        """,
        "GRANT SELECT ON endpoint_state TO pg_monitor",
        "UPDATE endpoint_state SET app_version = 'kettle-9' WHERE endpoint_id = 'wrong'",
        "DELETE FROM endpoint_state WHERE endpoint_id = 'deleted'",
        "INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at) VALUES ('foreign', 3, now())",
        """
        CREATE TRIGGER users_trigger AFTER INSERT OR UPDATE OR DELETE ON endpoint_state
        FOR EACH ROW EXECUTE FUNCTION hear()
        """,
    ):
        await query(database_url, statement)
    kept = """
    SELECT 'endpoint_state'::regclass::oid, pg_get_indexdef('users_index'::regclass),
           has_table_privilege('pg_monitor', 'endpoint_state', 'SELECT')
    """
    before = await query(database_url, kept)
    assert figures(await projector().rebuild()) == (1, 1, 1)
    assert await query(database_url, kept) == before
    assert sorted(await query(database_url, "TABLE heard")) == [
        ("DELETE", "foreign"),
        ("INSERT", "deleted"),
        ("UPDATE", "wrong"),
    ]
    assert await query(database_url, "SELECT * FROM versions WHERE app_version = 'kettle-2' ORDER BY 1") == [
        ("deleted", "kettle-2"),
        ("right", "kettle-2"),
        ("wrong", "kettle-2"),
    ]


@asynccontextmanager
async def counting_rows(url: str) -> AsyncIterator[list[int]]:
    """Count rows without pause; a statement that fails fails the block."""
    counts: list[int] = []

    async def count() -> None:
        connection = await asyncpg.connect(url)
        try:
            while True:
                counts.append(await connection.fetchval("SELECT count(*) FROM endpoint_state"))
        finally:
            connection.terminate()

    async with in_background(count()):
        yield counts


@asynccontextmanager
async def in_background(work: Any) -> AsyncIterator[None]:
    """Have something done for the length of a block, or until it ends; its failure fails the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(result, asyncio.CancelledError | None):
            raise result


async def test_beside_a_working_daemon_nothing_is_lost_or_repeated_and_readers_never_see_fewer_rows(
    projector: Callable[..., Projector],
    publish: Publish,
    event: Event,
    codec: Codec,
    table: Any,
    undisturbed: Any,
    database_url: str,
    query: Query,
) -> None:
    folded, arriving = fleet(codec, 3000, endpoints=400), iter(fleet(codec, 20_000, endpoints=400)[3000:])
    position = await publish(event("lifecycle.registered", "deleted", appVersionName="1"), *folded)
    published = 0

    async def arrive() -> None:
        nonlocal published, position
        while True:
            position = await publish(*islice(arriving, 10))
            published += 10

    async with projector(batch_size=100).daemon() as witness:
        await witness.reached(position)
        await query(database_url, "DELETE FROM endpoint_state WHERE endpoint_id = 'deleted'")
        async with in_background(arrive()), counting_rows(database_url) as counts:
            for _ in range(3):
                report = await projector(batch_size=100).rebuild()
                assert figures(report) in [(1, 0, 0), (0, 0, 0)], report.differences
        await witness.reached(position)
        assert witness.errors == []
        assert witness.sessions == 1
    assert published > 100
    assert all(before <= after for before, after in pairwise(counts))
    assert counts[-1] > counts[0]
    assert await table() == await undisturbed()


async def test_a_daemon_that_is_held_by_the_last_transaction_goes_on_after_it_in_the_same_session(
    projector: Callable[..., Projector],
    publish: Publish,
    event: Event,
    table: Any,
    undisturbed: Any,
    held_at_its_end: Any,
    database_url: str,
    query: Query,
) -> None:
    position = await publish(*lives(event, "a", "b"))
    async with projector().daemon() as witness:
        await witness.reached(position)
        await query(database_url, "DELETE FROM endpoint_state")
        async with held_at_its_end(projector().rebuild()) as connection:
            position = await publish(event("config.updated", "a", configId="c2"))
            await waits(connection, "projector writer")
            assert await table() == []
        await witness.reached(position)
        assert witness.errors == []
        assert witness.sessions == 1
    assert await table() == await undisturbed()


async def test_without_a_daemon_the_checkpoint_is_left_where_reading_stopped(
    projector: Callable[..., Projector], publish: Publish, event: Event, codec: Codec, table: Any, undisturbed: Any
) -> None:
    await publish(*fleet(codec, 50))
    await projector().run()
    position = await publish(*fleet(codec, 100)[50:])
    report = await projector().rebuild()
    assert report.position == position
    assert await table() == await undisturbed()
    witness = await projector().run()
    assert (witness.position, witness.commits) == (position, 0)
    assert (await projector().verify()).clean
    await publish(event("lifecycle.registered", "later", appVersionName="1"))
    assert (await projector().run()).commits == 1
    assert await table() == await undisturbed()


async def test_where_nothing_ever_ran_a_rebuild_builds_everything(
    projector: Callable[..., Projector], publish: Publish, codec: Codec, table: Any, undisturbed: Any
) -> None:
    position = await publish(*fleet(codec, 100))
    report = await projector().rebuild()
    right = await undisturbed()
    assert figures(report) == (len(right), 0, 0)
    assert await table() == right
    witness = await projector().run()
    assert (witness.position, witness.commits) == (position, 0)


async def test_an_empty_stream_implies_an_empty_table(
    projector: Callable[..., Projector], publish: Publish, event: Event, table: Any, database_url: str, query: Query
) -> None:
    await query(
        database_url,
        "INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at) VALUES ('foreign', 3, now())",
    )
    assert figures(await projector().rebuild()) == (0, 1, 0)
    assert await table() == []
    await publish(event("lifecycle.registered", "first", appVersionName="1"))
    assert (await projector().run()).commits == 1


async def test_a_daemon_started_during_a_rebuild_stands_by_and_takes_over_after_it(
    projector: Callable[..., Projector],
    publish: Publish,
    event: Event,
    table: Any,
    undisturbed: Any,
    held_at_its_end: Any,
) -> None:
    await publish(*lives(event, "a"))
    async with projector().daemon() as witness:
        pass
    async with held_at_its_end(projector().rebuild()), asyncio.TaskGroup() as tasks:
        del tasks
    async with projector().daemon() as witness:
        await witness.reached(1)
    del undisturbed, table
