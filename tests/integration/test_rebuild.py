import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any, Never

import asyncpg
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from sqlalchemy import BigInteger, Column, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from projector.app.ports import Source
from projector.app.rebuild import Report
from projector.app.replay import Replay
from projector.dev.fleet import Fleet
from projector.errors import (
    DamagedRowError,
    DeliveryInterruptedError,
    ProjectorError,
    RebuildRunningError,
    RulesChangedError,
    StreamTrimmedError,
)
from projector.runtime import Projector
from projector.settings import load
from projector.storage import store as store_module
from projector.storage.tables import endpoint_state
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.connection import Broker, connect
from projector.stream.consumers import ReplayConsumer
from projector.stream.view import StreamView
from tests.support.fixtures import Event, Eventually, Publish, Rows, Wire
from tests.support.patience import PATIENCE_S
from tests.support.scene import Daemon, Recorder, Scene

COLUMNS = {column.name: column for column in endpoint_state.columns if not column.primary_key}
MALFORMED = (subjects.build("kpc", "connectivity.connected"), b"\xff")
UNKNOWN = (subjects.build("kpc", "config.future"), b"")


class World:
    """A stream and a database, and what a test does to them."""

    def __init__(self, scene: Scene, jetstream: JetStreamContext, eventually: Eventually) -> None:
        self.scene = scene
        self.jetstream = jetstream
        self.sql = scene.query
        self.table = scene.table
        self.fold = scene.fold
        self._eventually = eventually

    async def rebuild(self, *, apply: bool = True, batch_size: int = 1000, **options: Any) -> Report:
        settings = {
            "nats_url": self.scene.nats_url,
            "database_url": self.scene.database_url,
            "batch_size": batch_size,
            "originators": options.pop("originators", ""),
        }
        projector = Projector(load(settings, config=None, fallback=None))
        asked = {"accept_trimmed": False, "progress": None} | options
        return await projector._replay(apply=apply, **asked)  # a rebuild can show rows too; its public method does not

    async def verify(self, **options: Any) -> Report:
        return await self.rebuild(apply=False, **options)

    async def reached(self, position: int) -> None:
        """Return when everything up to a position is folded."""
        asked = "SELECT FROM projector_checkpoint WHERE position >= $1"
        await self._eventually(lambda: self.sql(asked, position))

    async def row(self, endpoint_id: str, *columns: str) -> tuple[Any, ...]:
        (row,) = await self.sql(f"SELECT {', '.join(columns)} FROM endpoint_state WHERE endpoint_id = $1", endpoint_id)
        return row

    async def versions(self) -> dict[str, Any]:
        """Version and location of each row, which change whenever the row is written."""
        rows = await self.sql("SELECT endpoint_id, xmin::text, ctid::text FROM endpoint_state")
        return {endpoint_id: version for endpoint_id, *version in rows}

    async def dead_letters(self) -> Rows:
        return await self.sql("SELECT position, state, attempts FROM dead_letter ORDER BY stream, position")

    async def skipped(self) -> str:
        ((skipped,),) = await self.sql("SELECT skipped FROM projector_checkpoint")
        return str(skipped)

    async def waits(self, application: str) -> None:
        """Return when a connection of that name waits for a lock."""
        asked = """
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE $1 || '%' AND wait_event_type = 'Lock'
        """
        await self._eventually(lambda: self.sql(asked, application))

    @asynccontextmanager
    async def held(self, rebuild: Coroutine[Any, Any, Report], lock: str) -> AsyncIterator[asyncio.Task[Report]]:
        """Make a rebuild wait for a lock within the block, after which it must complete."""
        async with asyncio.TaskGroup() as tasks:
            connection = await asyncpg.connect(self.scene.database_url)
            try:
                async with connection.transaction():
                    await connection.execute(f"LOCK TABLE {lock}")
                    task = tasks.create_task(rebuild)
                    await self.waits("projector rebuild")
                    yield task
            finally:
                connection.terminate()


@pytest.fixture
def world(scene: Scene, nats_client: Client, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> World:
    """On a busy machine, tests hold locks and leave sessions idle for longer than the product allows."""
    for settings in (store_module.WRITER_SETTINGS, store_module.LEADER_SETTINGS):
        monkeypatch.setitem(settings, "lock_timeout", f"{PATIENCE_S:.0f}s")
        for limit in ("idle_in_transaction_session_timeout", "idle_session_timeout"):
            monkeypatch.setitem(settings, limit, "0")
    return World(scene, nats_client.jetstream(), eventually)


@pytest.fixture
def undisturbed(scene: Scene, other_database_url: str) -> Callable[[], Awaitable[Rows]]:
    """Folds the whole stream once into another database, and returns the table."""

    async def undisturbed() -> Rows:
        await scene.fold(url=other_database_url, consumer="undisturbed")
        return await scene.table(other_database_url)

    return undisturbed


@pytest.fixture
def life(event: Event) -> Callable[..., list[Wire]]:
    """Builds, for each endpoint, eight events that leave no column of it empty."""

    def life(*endpoint_ids: str) -> list[Wire]:
        return [
            message
            for one in endpoint_ids
            for message in (
                event("lifecycle.registered", one, appVersionName="kettle-1"),
                event("connectivity.connected", one, appVersionName="kettle-1", originatorReplicaId="kpc-0"),
                event("connectivity.disconnected", endpointIds=[one], originatorReplicaId="kpc-0"),
                event(
                    "lifecycle.appversion-updated", one, appVersionName="kettle-2", previousAppVersionName="kettle-1"
                ),
                event("metadata.updated", one, added=["site", "room"]),
                event("config.new-available", one, configId="c1"),
                event("config.updated", one, configId="c1"),
                event("config.new-available", one, configId="c2"),
            )
        ]

    return life


@pytest.fixture
def fleet(codec: Codec) -> Callable[..., list[Wire]]:
    """Builds the first events in the life of a fleet."""

    def fleet(events: int, *, endpoints: int = 40) -> list[Wire]:
        simulated = Fleet(endpoints=endpoints, seed=7, start_at=1_700_000_000_000, interval_ms=100).events()
        return [
            (subjects.build(one.originator, one.event_type), codec.encode(one.event_type, one.record))
            for one in islice(simulated, events)
        ]

    return fleet


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, Never]) -> AsyncIterator[None]:
    """Run a coroutine during the block; if it fails, so does the block."""
    task: asyncio.Task[Never] = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError), f"it ended before its time: {result!r}"


@asynccontextmanager
async def counting_rows(url: str) -> AsyncIterator[list[int]]:
    """Count rows without pause."""
    counts: list[int] = []

    async def count() -> Never:
        connection = await asyncpg.connect(url)
        try:
            while True:
                counts.append(await connection.fetchval("SELECT count(*) FROM endpoint_state"))
        finally:
            connection.terminate()

    async with in_background(count()):
        yield counts


async def stopped_in_its_only_session(daemon: Daemon) -> None:
    recorder = await daemon.stop()
    assert (recorder.errors, recorder.heard["active"]) == ([], 1)


def commits(recorder: Recorder) -> int:
    return recorder.heard["committed"]


def figures(report: Report) -> tuple[int, int, int]:
    found = report.differences
    return found.missing, found.extra, found.different


EMPTY = {"config_failed_id", "config_failed_at", "config_failure_code", "config_failure_reason", "unregistered_at"}
"""Columns that no event of revision kaa-2017-04 fills."""


def forged(column: Column[Any]) -> str:
    """SQL for another value than the one in a column."""
    match column.type:
        case Text():
            return f"coalesce({column.name}, '') || '?'"
        case Integer():  # BigInteger is one
            return f"coalesce({column.name}, 0) + 1"
        case JSONB():
            return "'[[1]]'"
    return f"coalesce({column.name}, now()) + interval '1 millisecond'"


def emptied(column: Column[Any]) -> str:
    """SQL for the emptiest value of a column."""
    if column.nullable:
        return "NULL"
    match column.type:
        case Text():
            return "''"
        case BigInteger():
            return "0"
        case JSONB():
            return "'{}'"
    return "'-infinity'"


AT_ITS_END = "dead_letter IN SHARE MODE"
"""Everything is changed, and nothing is committed."""
BETWEEN_TRANSACTIONS = "projector_checkpoint IN ACCESS EXCLUSIVE MODE"
"""The rebuild has its tables, and no lock on them."""
INVENT = "INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at) VALUES ('invented', 3, now())"


async def test_rebuild_of_a_correct_table_rewrites_no_row(world: World, publish: Publish, fleet: Any) -> None:
    position = await publish(*fleet(500))
    await world.fold()
    before = await world.versions()
    for replay in (world.verify, world.rebuild):
        report = await replay()
        assert report.clean
        assert (report.replayed, report.position, report.differences.compared) == (500, position, len(before))
    assert await world.versions() == before
    assert await world.sql("SELECT relname FROM pg_class WHERE relname LIKE '%rebuild%'") == []


@pytest.mark.parametrize("corrupt", [forged, emptied])
async def test_wrong_value_in_any_column_is_found_and_repaired(
    corrupt: Callable[[Column[Any]], str], world: World, publish: Publish, life: Any
) -> None:
    await publish(*life(*COLUMNS, "bystander"))
    await world.fold()
    right, before = await world.table(), await world.versions()
    corrupted = [name for name in COLUMNS if corrupt is forged or name not in EMPTY]
    for name in corrupted:
        await world.sql(f"UPDATE endpoint_state SET {name} = {corrupt(COLUMNS[name])} WHERE endpoint_id = $1", name)
    for replay in (world.verify, world.rebuild):
        report = await replay(show=100)
        assert figures(report) == (0, 0, len(corrupted))
        assert report.differences.by_column == dict.fromkeys(corrupted, 1)
        shown = {row.endpoint_id: [*row.columns] for row in report.differences.shown}
        assert shown == {name: [name] for name in corrupted}
    assert await world.table() == right
    assert (await world.verify()).clean
    assert (await world.versions())["bystander"] == before["bystander"]


async def test_missing_extra_and_renamed_rows_are_found_and_repaired(world: World, publish: Publish, life: Any) -> None:
    await publish(*life("deleted", "renamed", "stays"))
    await world.fold()
    right, before = await world.table(), await world.versions()
    await world.sql("DELETE FROM endpoint_state WHERE endpoint_id = 'deleted'")
    await world.sql("UPDATE endpoint_state SET endpoint_id = 'name' WHERE endpoint_id = 'renamed'")
    await world.sql(INVENT)
    for replay in (world.verify, world.rebuild):
        report = await replay(show=9)
        assert figures(report) == (2, 2, 0)
        assert [(row.endpoint_id, row.kind) for row in report.differences.shown] == [
            ("deleted", "missing"),
            ("invented", "extra"),
            ("name", "extra"),
            ("renamed", "missing"),
        ]
    assert await world.table() == right
    assert (await world.verify()).clean
    assert (await world.versions())["stays"] == before["stays"]


async def test_one_endpoint_is_shown_with_the_messages_about_it_and_no_others(
    world: World, publish: Publish, event: Event, life: Any
) -> None:
    await publish(*life("other", "asked"), event("connectivity.disconnected", endpointIds=["other", "asked"]))
    await world.fold()
    await world.sql("UPDATE endpoint_state SET app_version = 'kettle-9'")
    report = await world.verify(endpoint_id="asked")
    assert figures(report) == (0, 0, 2)
    (shown,) = report.differences.shown
    assert (shown.endpoint_id, dict(shown.columns)) == ("asked", {"app_version": ("kettle-9", "kettle-2")})
    assert [mention.message.position for mention in report.mentions] == [*range(9, 18)]


async def test_indexes_and_views_survive_and_triggers_fire_only_for_different_rows(
    world: World, publish: Publish, life: Any
) -> None:
    await publish(*life("deleted", "wrong", "right"))
    await world.fold()
    for statement in (
        "CREATE VIEW versions AS SELECT endpoint_id, app_version FROM endpoint_state",
        "CREATE INDEX users_index ON endpoint_state (app_version)",
        "GRANT SELECT ON endpoint_state TO pg_monitor",
        "CREATE TABLE heard (what text, endpoint_id text)",
        """
        CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO heard VALUES (tg_op, coalesce(new.endpoint_id, old.endpoint_id)); RETURN NULL; END $$
        """,
        "UPDATE endpoint_state SET app_version = 'kettle-9' WHERE endpoint_id = 'wrong'",
        "DELETE FROM endpoint_state WHERE endpoint_id = 'deleted'",
        INVENT,
        """
        CREATE TRIGGER users_trigger AFTER INSERT OR UPDATE OR DELETE ON endpoint_state
        FOR EACH ROW EXECUTE FUNCTION hear()
        """,
    ):
        await world.sql(statement)
    kept = """
    SELECT 'endpoint_state'::regclass::oid, pg_get_indexdef('users_index'::regclass),
           has_table_privilege('pg_monitor', 'endpoint_state', 'SELECT')
    """
    before = await world.sql(kept)
    assert figures(await world.rebuild()) == (1, 1, 1)
    assert await world.sql(kept) == before
    assert sorted(await world.sql("TABLE heard")) == [
        ("DELETE", "invented"),
        ("INSERT", "deleted"),
        ("UPDATE", "wrong"),
    ]
    right = [("deleted", "kettle-2"), ("right", "kettle-2"), ("wrong", "kettle-2")]
    assert await world.sql("SELECT * FROM versions WHERE app_version = 'kettle-2' ORDER BY 1") == right


async def test_rebuild_during_a_daemon_loses_nothing_and_queries_never_see_fewer_rows(
    world: World, publish: Publish, event: Event, fleet: Any, undisturbed: Any
) -> None:
    life = fleet(30_000, endpoints=3000)
    arriving = iter(life[3000:])
    position = await publish(event("lifecycle.registered", "deleted", appVersionName="1"), *life[:3000])
    published = 0

    async def arrive() -> Never:
        nonlocal position, published
        while True:
            if not (few := [*islice(arriving, 5)]):
                await asyncio.Event().wait()  # everything has arrived
            position = await publish(*few)
            published += 5

    daemon = world.scene.follow()
    await world.reached(position)
    await world.sql("DELETE FROM endpoint_state WHERE endpoint_id = 'deleted'")
    async with in_background(arrive()), counting_rows(world.scene.database_url) as counts:
        reports = [await world.rebuild(batch_size=100)]
        while len(reports) < 2 or published <= 100:
            reports.append(await world.rebuild(batch_size=100))
    # It is stored after those that had been sent but not acknowledged when publishing was cancelled.
    position = await publish(event("connectivity.connected", "last"))
    await world.reached(position)
    await stopped_in_its_only_session(daemon)
    assert [figures(report) for report in reports] == [(1, 0, 0), *[(0, 0, 0)] * (len(reports) - 1)]
    assert all(before <= after for before, after in pairwise(counts))
    assert await world.table() == await undisturbed()


async def test_daemon_continues_its_session_after_the_final_transaction(
    world: World, publish: Publish, event: Event, life: Any, undisturbed: Any
) -> None:
    position = await publish(*life("a", "b"))
    daemon = world.scene.follow()
    await world.reached(position)
    await world.sql("DELETE FROM endpoint_state")
    async with world.held(world.rebuild(), AT_ITS_END):
        position = await publish(event("config.updated", "a", configId="c2"))
        await world.waits("projector writer")
        assert await world.table() == []
    await world.reached(position)
    await stopped_in_its_only_session(daemon)
    assert await world.table() == await undisturbed()


async def test_rebuild_without_a_daemon_moves_the_checkpoint_to_its_last_message(
    world: World, publish: Publish, event: Event, fleet: Any, undisturbed: Any
) -> None:
    life = fleet(100)
    await publish(*life[:50])
    await world.fold()
    position = await publish(*life[50:])
    assert (await world.rebuild()).position == position == await world.scene.position()
    assert await world.table() == await undisturbed()
    assert commits(await world.fold()) == 0
    assert (await world.verify()).clean
    await publish(event("lifecycle.registered", "later", appVersionName="1"))
    assert commits(await world.fold()) == 1
    assert await world.table() == await undisturbed()


async def test_events_not_folded_yet_are_no_differences(world: World, publish: Publish, fleet: Any) -> None:
    life = fleet(100)
    position = await publish(*life[:50])
    await world.fold()
    await publish(*life[50:])
    report = await world.verify()
    assert report.clean
    assert report.position == position == await world.scene.position()


async def test_rebuild_of_an_empty_database_builds_all_rows(
    world: World, publish: Publish, fleet: Any, undisturbed: Any
) -> None:
    position = await publish(*fleet(100))
    report = await world.rebuild()
    assert report.position == position == await world.scene.position()
    right = await undisturbed()
    assert figures(report) == (len(right), 0, 0)
    assert await world.table() == right
    assert commits(await world.fold()) == 0


async def test_an_empty_stream_implies_an_empty_table(world: World, publish: Publish, event: Event) -> None:
    await world.sql(INVENT)
    assert figures(await world.rebuild()) == (0, 1, 0)
    assert await world.table() == []
    await publish(event("lifecycle.registered", "first", appVersionName="1"))
    assert commits(await world.fold()) == 1


async def test_daemon_started_during_a_rebuild_stands_by_until_its_end(
    world: World, publish: Publish, event: Event, life: Any, undisturbed: Any
) -> None:
    position = await publish(*life("a"))
    async with world.held(world.rebuild(), AT_ITS_END) as rebuild:
        daemon = world.scene.follow()
        await daemon.hears("standing by")
        await publish(event("config.updated", "a", configId="c2"))
        assert await world.sql("TABLE projector_checkpoint") == []
    assert rebuild.result().position == position  # the checkpoint may be beyond it by now
    await world.reached(position + 1)
    await stopped_in_its_only_session(daemon)
    assert await world.table() == await undisturbed()


@pytest.mark.parametrize("lock", [BETWEEN_TRANSACTIONS, AT_ITS_END])
async def test_second_rebuild_is_refused_and_does_not_disturb_the_first(
    lock: str, world: World, publish: Publish, life: Any, undisturbed: Any
) -> None:
    await publish(*life("a"))
    async with world.held(world.rebuild(), lock):
        ((pid,),) = await world.sql(
            """
            SELECT pid FROM pg_stat_activity
            WHERE datname = current_database() AND application_name ~ '^projector rebuild'
            """
        )
        for replay in (world.rebuild, world.verify):
            with pytest.raises(RebuildRunningError, match=rf"projector rebuild.*, backend process {pid}, since 20"):
                await replay()
    assert await world.table() == await undisturbed()


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
async def test_batch_size_does_not_change_the_result(
    batch_size: int, world: World, publish: Publish, fleet: Any, undisturbed: Any
) -> None:
    await publish(*fleet(300), MALFORMED, UNKNOWN)
    await world.rebuild(batch_size=batch_size)
    assert await world.table() == await undisturbed()
    assert await world.dead_letters() == [(301, "parked", 1)]
    assert (await world.verify()).clean


async def test_dead_letter_that_can_be_folded_now_is_resolved(world: World, publish: Publish, event: Event) -> None:
    await world.sql("ALTER TABLE endpoint_state ADD CONSTRAINT users CHECK (app_version <> 'forbidden')")
    await publish(
        event("lifecycle.registered", "a", appVersionName="1"),
        event("lifecycle.registered", "b", appVersionName="forbidden"),
    )
    await world.fold()
    assert await world.dead_letters() == [(2, "parked", 1)]
    await world.sql("ALTER TABLE endpoint_state DROP CONSTRAINT users")
    assert figures(await world.rebuild()) == (1, 0, 0)
    assert await world.row("b", "app_version") == ("forbidden",)
    assert await world.sql("SELECT state, closed_at IS NOT NULL FROM dead_letter") == [("resolved", True)]


async def park_by_mistake(
    world: World, position: int, *, state: str = "parked", stream: str = "KAA_ENDPOINT_EVENTS"
) -> None:
    message = await world.jetstream.get_msg(world.scene.stream, position)
    await world.sql(
        """
        INSERT INTO dead_letter (stream, position, state, subject, payload, stored_at, reason, detail)
        VALUES ($1, $2, $3, $4, $5, $6, 'database-rejected', 'by mistake')
        """,
        stream,
        position,
        state,
        message.subject,
        message.data,
        message.time,
    )


async def test_a_verification_settles_no_dead_letter(world: World, publish: Publish, life: Any) -> None:
    await publish(*life("a"))
    await world.fold()
    await park_by_mistake(world, 1)
    assert (await world.verify()).clean
    assert await world.dead_letters() == [(1, "parked", 1)]


async def test_dead_letters_that_cannot_be_folded_are_left_unchanged(world: World, publish: Publish, life: Any) -> None:
    await publish(MALFORMED, MALFORMED, MALFORMED, *life("a"))
    await world.fold()
    await world.sql("UPDATE dead_letter SET state = 'discarded', note = 'known' WHERE position = 2")
    await world.sql("UPDATE dead_letter SET state = 'resolved' WHERE position = 3")
    await park_by_mistake(world, 4)
    await park_by_mistake(world, 5, state="discarded")
    await park_by_mistake(world, 6, stream="OTHER")
    untouched = "SELECT * FROM dead_letter WHERE position IN (1, 2, 6) ORDER BY position"
    before = await world.sql(untouched)
    assert (await world.rebuild()).clean
    assert await world.sql(untouched) == before
    assert await world.dead_letters() == [
        (1, "parked", 1),
        (2, "discarded", 1),
        (3, "parked", 1),
        (4, "resolved", 1),
        (5, "discarded", 1),
        (6, "parked", 1),
    ]


async def test_dead_letter_whose_message_left_the_stream_is_not_resolved(
    world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("a"), MALFORMED, *life("b"))
    await world.fold()
    await world.jetstream.delete_msg(stream, 9)
    assert (await world.rebuild(accept_trimmed=True)).clean
    assert await world.dead_letters() == [(9, "parked", 1)]


async def test_changed_originators_are_refused_until_a_rebuild(world: World, publish: Publish, event: Event) -> None:
    await publish(
        event("lifecycle.registered", "a", originator="epr", appVersionName="1"),
        event("lifecycle.registered", "a", originator="old", appVersionName="2"),
        event("lifecycle.registered", "b", originator="old", appVersionName="2"),
        (subjects.build("old", "lifecycle.registered"), b"\xff"),
    )
    await world.fold()
    with pytest.raises(RulesChangedError, match="originators"):
        await world.fold(originators="epr")
    assert figures(await world.rebuild(originators="epr")) == (0, 1, 1)
    assert await world.sql("SELECT endpoint_id, app_version, last_event_seq FROM endpoint_state") == [("a", "1", 1)]
    assert await world.dead_letters() == [(4, "parked", 1)]
    assert commits(await world.fold(originators="epr")) == 0


async def test_user_constraint_parks_the_same_message_live_and_in_a_rebuild(
    world: World, publish: Publish, fleet: Any, life: Any
) -> None:
    await world.sql("ALTER TABLE endpoint_state ADD CONSTRAINT users CHECK (endpoint_id <> 'unwanted')")
    await publish(*fleet(100), *life("unwanted")[:1], *fleet(200)[100:])
    await world.fold()
    assert await world.dead_letters() == [(101, "parked", 1)]
    before = await world.versions()
    assert (await world.rebuild()).clean
    assert await world.versions() == before
    assert await world.dead_letters() == [(101, "parked", 1)]


async def test_trigger_that_rejects_a_row_fails_the_rebuild_with_its_reason(
    world: World, publish: Publish, life: Any
) -> None:
    for statement in (
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.endpoint_id = 'unwanted' THEN RAISE 'no such kettle'; END IF; RETURN new; END $$
        """,
        "CREATE TRIGGER users BEFORE INSERT ON endpoint_state FOR EACH ROW EXECUTE FUNCTION refuse()",
    ):
        await world.sql(statement)
    await publish(*life("a"), *life("unwanted")[:1])
    await world.fold()
    await world.sql("UPDATE endpoint_state SET app_version = 'kettle-9'")
    before = await world.versions()
    with pytest.raises(ProjectorError, match="no such kettle"):
        await world.rebuild()
    assert await world.versions() == before
    assert await world.dead_letters() == [(9, "parked", 1)]


async def test_rebuild_recounts_skipped_messages(world: World, publish: Publish, life: Any) -> None:
    await publish(UNKNOWN, *life("a"), UNKNOWN)
    await world.fold()
    assert await world.skipped() == '{"config.future": 2}'
    await world.sql("""UPDATE projector_checkpoint SET skipped = '{"config.future": 7, "past.thing": 1}'""")
    await world.rebuild()
    assert await world.skipped() == '{"config.future": 2}'
    await publish(UNKNOWN)
    await world.fold()
    assert await world.skipped() == '{"config.future": 3}'


async def test_skipped_messages_are_counted_once_while_a_daemon_runs(world: World, publish: Publish, life: Any) -> None:
    position = await publish(UNKNOWN, *life("a"))
    world.scene.follow()
    await world.reached(position)
    await world.rebuild()
    position = await publish(UNKNOWN)
    await world.reached(position)
    assert await world.skipped() == '{"config.future": 2}'


async def test_a_trimmed_stream_is_refused_and_nothing_is_changed(
    world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("a", "b"))
    await world.fold()
    await world.jetstream.purge_stream(stream, seq=4)
    await world.sql("DELETE FROM endpoint_state WHERE endpoint_id = 'a'")
    before = await world.table()
    for replay in (world.rebuild, world.verify):
        with pytest.raises(
            StreamTrimmedError,
            match=r"begins at position 4, and 3 .* gone; with --accept-trimmed .* kept",
        ):
            await replay()
    assert await world.table() == before


@pytest.mark.parametrize("gone", [0, 3, 7])
async def test_rebuild_keeps_values_older_than_a_trimmed_stream(
    gone: int, world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("old", "partly"))
    await world.fold()
    right, before = await world.table(), await world.versions()
    await world.jetstream.purge_stream(stream, seq=9 + gone)
    assert (await world.rebuild(accept_trimmed=True)).clean
    assert await world.versions() == before
    derived = [column for column in COLUMNS.values() if "registers" not in column.name and "last" not in column.name]
    for column in derived:
        await world.sql(f"UPDATE endpoint_state SET {column.name} = {forged(column)}")
    await world.sql(INVENT)
    report = await world.rebuild(accept_trimmed=True)
    assert figures(report) == (0, 1, 2)
    assert report.differences.by_column == {column.name: 2 for column in derived}
    assert await world.table() == right


async def test_rebuild_from_a_trimmed_stream_repairs_what_the_stream_implies(
    world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("old", "deleted", "damaged"))
    await world.fold()
    right = await world.table()
    await world.jetstream.purge_stream(stream, seq=9)
    await world.sql("DELETE FROM endpoint_state WHERE endpoint_id = 'deleted'")
    await world.sql("UPDATE endpoint_state SET application_registers = NULL WHERE endpoint_id = 'damaged'")
    assert figures(await world.rebuild(accept_trimmed=True)) == (1, 0, 1)
    assert await world.table() == right
    assert commits(await world.fold()) == 0


async def test_unreadable_register_is_named_when_the_stream_is_trimmed(
    world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("damaged", "b"))
    await world.fold()
    await world.jetstream.purge_stream(stream, seq=9)
    await world.sql("UPDATE endpoint_state SET application_registers = '[[1]]' WHERE endpoint_id = 'damaged'")
    with pytest.raises(DamagedRowError, match=r"damaged.*set them to null.*--accept-trimmed`$"):
        await world.rebuild(accept_trimmed=True)
    await world.sql("UPDATE endpoint_state SET application_registers = NULL WHERE endpoint_id = 'damaged'")
    await world.rebuild(accept_trimmed=True)
    assert (await world.rebuild(accept_trimmed=True)).clean


async def test_changed_creation_time_does_not_replace_a_trimmed_stream(
    world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("old", "both"))
    await world.fold()
    right = await world.table()
    await world.jetstream.purge_stream(stream, seq=9)
    await world.sql("UPDATE projector_checkpoint SET stream_created_at = stream_created_at - interval '1 hour'")
    assert (await world.rebuild(accept_trimmed=True)).clean
    assert await world.table() == right
    assert commits(await world.fold()) == 0


async def test_recreated_trimmed_stream_warns_that_earlier_rows_are_lost(
    world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("old"))
    await world.fold()
    config = (await world.jetstream.stream_info(stream)).config
    await world.jetstream.delete_stream(stream)
    await world.jetstream.add_stream(config)
    await publish(*life("new"))
    await world.jetstream.purge_stream(stream, seq=4)
    with pytest.raises(StreamTrimmedError, match="is lost"):
        await world.rebuild()


async def test_stream_that_begins_high_is_not_trimmed(world: World, publish: Publish, stream: str, life: Any) -> None:
    config = (await world.jetstream.stream_info(stream)).config
    await world.jetstream.delete_stream(stream)
    await world.jetstream.add_stream(replace(config, first_seq=1_000_000_000))
    await publish(*life("a", "b"))
    await world.fold()
    assert (await world.verify()).clean


async def test_deleted_messages_count_as_trimmed_and_their_state_is_kept(
    world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("a", "b", "c"))
    await world.fold()
    right = await world.table()
    for position in (10, 11, 12, 13, 14, 15, 16, 17):  # every message that names b, and one about each of the others
        await world.jetstream.delete_msg(stream, position)
    for replay in (world.rebuild, world.verify):
        with pytest.raises(StreamTrimmedError, match="8 of its messages"):
            await replay()
    assert (await world.rebuild(accept_trimmed=True)).clean
    assert await world.table() == right


async def test_recreated_trimmed_stream_keeps_no_earlier_values(
    world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("old", "both"))
    await world.fold()
    config = (await world.jetstream.stream_info(stream)).config
    await world.jetstream.delete_stream(stream)
    await world.jetstream.add_stream(config)
    await publish(*life("gone", "both"))
    await world.jetstream.purge_stream(stream, seq=9)
    await world.rebuild(accept_trimmed=True)
    assert [row[0] for row in await world.table()] == ["both"]
    assert await world.row("both", "last_event_seq", "connectivity_status") == (16, "disconnected")
    assert (await world.verify(accept_trimmed=True)).clean


async def test_row_keeps_its_latest_event_after_its_message_was_deleted(
    world: World, publish: Publish, stream: str, life: Any
) -> None:
    await publish(*life("old", "other"))
    await publish(*life("old")[:1])
    await world.fold()
    right = await world.table()
    await world.jetstream.purge_stream(stream, seq=9)
    await world.jetstream.delete_msg(stream, 17)
    assert (await world.rebuild(accept_trimmed=True)).clean
    assert await world.table() == right


@pytest.mark.parametrize("gone", [2000, 3999, 4000])
async def test_correct_table_verifies_however_far_the_stream_is_trimmed(
    gone: int, world: World, publish: Publish, stream: str, fleet: Any
) -> None:
    await publish(*fleet(4000, endpoints=60))
    await world.fold(batch_size=1000)
    await world.jetstream.purge_stream(stream, seq=gone + 1)
    report = await world.verify(accept_trimmed=True, show=100)
    assert report.clean, report.differences


@pytest.fixture
def purged_meanwhile(
    world: World, stream: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[type[Any], str, Callable[[], int]], None]:
    """Purges the stream up to a position whenever a method of a rebuild's source has answered."""

    def purge(kind: type[Any], method: str, before: Callable[[], int]) -> None:
        original = getattr(kind, method)

        async def overtaken(source: Any, *arguments: Any) -> Any:
            answer = await original(source, *arguments)
            if answer is not None and (first := before()) > 1:  # NATS 2.9 purges everything before position 1
                await world.jetstream.purge_stream(stream, seq=first)
            return answer

        monkeypatch.setattr(kind, method, overtaken)

    return purge


async def test_a_stream_trimmed_while_a_rebuild_begins_is_refused(
    world: World, publish: Publish, life: Any, purged_meanwhile: Any
) -> None:
    await publish(*life("a", "b"))
    await world.fold()
    right = await world.table()
    purged_meanwhile(StreamView, "state", lambda: 9)
    with pytest.raises(StreamTrimmedError):
        await world.rebuild()
    assert await world.table() == right


async def test_values_trimmed_while_a_rebuild_begins_are_kept_from_the_table(
    world: World, publish: Publish, stream: str, life: Any, purged_meanwhile: Any
) -> None:
    await publish(*life("a", "b", "c"))
    await world.fold()
    right = await world.table()
    await world.jetstream.purge_stream(stream, seq=4)
    purged_meanwhile(StreamView, "state", lambda: 14)
    assert (await world.rebuild(batch_size=5, accept_trimmed=True)).clean
    assert await world.table() == right


async def test_messages_trimmed_ahead_of_a_replay_end_the_rebuild(
    world: World, publish: Publish, fleet: Any, purged_meanwhile: Any
) -> None:
    await publish(*fleet(200))
    await world.fold()
    right = await world.table()
    purges = iter([1, 1, 150])
    purged_meanwhile(ReplayConsumer, "next", lambda: next(purges, 150))
    with pytest.raises(DeliveryInterruptedError, match="left the stream before they were read"):
        await world.rebuild(batch_size=10)
    assert await world.table() == right


async def test_stream_emptied_during_a_replay_ends_the_rebuild(
    world: World, publish: Publish, fleet: Any, purged_meanwhile: Any
) -> None:
    await publish(*fleet(200))
    await world.fold()
    right = await world.table()
    purges = iter([1, 1, 201])
    purged_meanwhile(ReplayConsumer, "next", lambda: next(purges, 201))
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(DeliveryInterruptedError, match="left the stream before they were read"):
            await world.rebuild(batch_size=10)
    assert await world.table() == right


async def test_replay_does_not_wait_for_deleted_messages(
    world: World, publish: Publish, stream: str, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(*fleet(200))
    await world.fold()
    original, left = ReplayConsumer.next, iter(range(2, 201))

    async def overtaken(source: ReplayConsumer, linger_s: float) -> Any:
        answer = await original(source, linger_s)
        for position in left:
            await world.jetstream.delete_msg(stream, position)
        return answer

    monkeypatch.setattr(ReplayConsumer, "next", overtaken)
    async with asyncio.timeout(PATIENCE_S):
        assert (
            await world.verify(batch_size=10, accept_trimmed=True)
        ).replayed < 100  # those that had been sent by then


async def test_messages_lost_after_the_last_replayed_one_end_the_rebuild(
    world: World, publish: Publish, stream: str, fleet: Any
) -> None:
    messages = fleet(20)
    await publish(*messages[:10])
    client, filters = await connect(Broker(urls=(world.scene.nats_url,)), name="test"), subjects.filters()
    consumer = ReplayConsumer(client, stream, filters, batch_size=10)
    replay = Replay(Source(view=StreamView(client, stream, filters), consumer=consumer))
    await replay.begin(0)
    assert [message.position async for batch in replay.batches_through(10) for message in batch] == list(range(1, 11))
    await publish(*messages[10:])
    await world.jetstream.purge_stream(stream)
    with pytest.raises(DeliveryInterruptedError, match="left the stream before they were read"):
        await anext(replay.batches_through(20))
    await client.close()


async def recreate(world: World) -> None:
    config = (await world.jetstream.stream_info(world.scene.stream)).config
    await world.jetstream.delete_stream(world.scene.stream)
    await world.jetstream.add_stream(config)


async def test_dead_letter_of_a_recreated_stream_replaces_the_earlier_one(
    world: World, publish: Publish, life: Any
) -> None:
    await publish(*[MALFORMED] * 4, *life("a"))
    await world.fold()
    await world.sql("UPDATE dead_letter SET state = 'discarded' WHERE position IN (2, 4)")
    await recreate(world)
    for arrive in (world.rebuild, world.fold):
        await publish(*[(MALFORMED[0], b"\xfe")] * 2)
        await arrive()
    parked = await world.sql("SELECT position, payload FROM dead_letter WHERE state = 'parked' ORDER BY 1")
    assert parked == [(position, b"\xfe") for position in (1, 2, 3, 4)]


async def test_message_of_a_recreated_stream_does_not_resolve_an_earlier_dead_letter(
    world: World, publish: Publish, life: Any
) -> None:
    await publish(MALFORMED)
    await world.fold()
    await recreate(world)
    await publish(*life("a"))
    await world.rebuild()
    assert await world.dead_letters() == [(1, "parked", 1)]
