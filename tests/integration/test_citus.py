"""Tables that Citus distributes over workers are folded, rebuilt and read like those of one Postgres."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import pytest

from projector.dev.embedded import EmbeddedPostgres
from projector.dev.fleet import Fleet
from projector.domain.changes import FeedCursor, Place
from projector.domain.messages import Selection
from projector.errors import DatabaseUnavailableError, NotDistributableError, ProjectorRunningError, RebuildRunningError
from projector.queries.endpoints import EndpointReader
from projector.runtime import Projector
from projector.storage import distribution, feed, statements
from projector.storage.distributed import BATCH_TABLE
from projector.storage.staging import Staging
from projector.storage.store import Store
from projector.storage.tables import endpoint_state
from projector.stream import subjects
from projector.stream.codec import Codec, encode_text
from tests.support import citus, servers
from tests.support.fixtures import Event, Eventually, Query, Wire
from tests.support.scene import Scene
from tests.support.versions import FAULTS

pytestmark = citus.needs_citus

MALFORMED = (subjects.build("kpc", "connectivity.connected"), b"\xff")
EXTRA = (
    "INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at) VALUES ('extra', 1, '2026-01-01 00:00Z')"
)
VISIBLE = ", ".join(column.name for column in endpoint_state.columns if not column.name.endswith("_registers"))
LOGGED = "SELECT * FROM endpoint_change ORDER BY position, endpoint_id, facet"
CORRECTIONS = """
SELECT endpoint_id, facet, before, after, previous_event_seq, previous_event_at FROM endpoint_change
WHERE verdict = 'corrected' ORDER BY endpoint_id, facet
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[EmbeddedPostgres]]:
    """The coordinator, then the workers."""
    with servers.server_folder() as folder, citus.cluster_in(folder) as started:
        asyncio.run(citus.create_template(started[0]))
        yield started


@pytest.fixture
def coordinator(cluster: list[EmbeddedPostgres]) -> EmbeddedPostgres:
    return cluster[0]


@pytest.fixture
async def undistributed_url(coordinator: EmbeddedPostgres) -> str:
    """A migrated database of the cluster."""
    return await citus.copy_template(coordinator)


@pytest.fixture
async def distributed_url(undistributed_url: str) -> str:
    await distribution.distribute(undistributed_url)
    return undistributed_url


@pytest.fixture
def distributed(scene: Scene, distributed_url: str) -> Scene:
    """A stream and a distributed database."""
    return replace(scene, database_url=distributed_url)


@pytest.fixture(scope="module")
def fleet(codec: Codec) -> list[Wire]:
    """A simulated fleet of 40 endpoints."""
    events = Fleet(endpoints=40, seed=7, start_at=1_700_000_000_000, interval_ms=1000).events()
    return [
        (subjects.build(event.originator, event.event_type), codec.encode(event.event_type, event.record))
        for event in islice(events, 1200)
    ]


async def test_a_distributed_table_is_folded_like_a_local_one(
    distributed: Scene, database_url: str, fleet: list[Wire]
) -> None:
    await distributed.publish(*fleet, MALFORMED)
    await distributed.fold(changes="7d")
    await distributed.fold(url=database_url, changes="7d")
    assert await distributed.table() == await distributed.table(database_url)
    assert await distributed.dead_letters() == [(len(fleet) + 1, "malformed-payload")]
    logged = "SELECT endpoint_id, facet, verdict, position, before, after FROM endpoint_change ORDER BY 4, 1, 2"
    assert await distributed.query(logged) == await distributed.ask(database_url, logged)


async def test_a_rebuild_corrects_a_distributed_table_and_logs_it_as_for_a_local_one(
    distributed: Scene, database_url: str, fleet: list[Wire]
) -> None:
    await distributed.publish(*fleet, MALFORMED)
    reports, logs = [], []
    for url in (distributed.database_url, database_url):
        await distributed.fold(url=url, changes="7d")
        table = await distributed.table(url)
        projector = Projector(distributed.settings(url))
        assert (await projector.verify()).clean
        ids = [row[0] for row in table]
        await distributed.ask(url, "UPDATE endpoint_state SET app_version = 'wrong' WHERE endpoint_id = $1", ids[0])
        await distributed.ask(url, "DELETE FROM endpoint_state WHERE endpoint_id = $1", ids[1])
        await distributed.ask(url, "UPDATE endpoint_state SET last_event_seq = 1 WHERE endpoint_id = $1", ids[2])
        await distributed.ask(url, EXTRA)
        ((moment,),) = await distributed.ask(url, "SELECT clock_timestamp()")
        damaged = await distributed.ask(url, f"SELECT {VISIBLE} FROM endpoint_state ORDER BY endpoint_id")
        reports += [(await projector.verify(show=10)).differences, (await projector.rebuild()).differences]
        assert await distributed.table(url) == table
        assert (await projector.verify()).clean
        logs.append(await distributed.ask(url, CORRECTIONS))
        past = f"SELECT {VISIBLE} FROM endpoint_state_at($1) ORDER BY endpoint_id"
        assert await distributed.ask(url, past, moment) == damaged
    assert reports[:2] == reports[2:]
    assert (reports[0].missing, reports[0].extra, reports[0].different) == (1, 1, 2)
    assert logs[0] == logs[1]
    assert logs[0]


async def test_queries_answer_the_same_about_a_distributed_table_as_about_a_local_one(
    distributed: Scene, database_url: str, fleet: list[Wire]
) -> None:
    urls = (distributed.database_url, database_url)
    moments = []
    for start in (0, 400, 800):
        await distributed.publish(*fleet[start : start + 400])
        for url in urls:
            await distributed.fold(url=url, changes="7d", batch_size=50)
        moments.append([(await distributed.ask(url, "SELECT clock_timestamp()"))[0][0] for url in urls])
    some_id = (await distributed.table())[7][0]
    answers = []
    for url, moments_here in zip(urls, zip(*moments, strict=True), strict=True):
        ask = partial(distributed.ask, url)
        projector = Projector(distributed.settings(url))
        reader = EndpointReader(url, distributed.stream, encode_text)
        answers.append(
            [
                await ask("SELECT * FROM endpoint_state_at($1) ORDER BY endpoint_id", moments_here[0]),
                await ask("SELECT * FROM endpoint_state_at($1) WHERE endpoint_id = $2", moments_here[1], some_id),
                [row[:-1] for row in await ask("SELECT * FROM endpoint_session ORDER BY 1, 2, 3")],
                [row[:-1] for row in await ask("SELECT * FROM endpoint_session WHERE endpoint_id = $1", some_id)],
                [row[:-1] for row in await ask("SELECT * FROM endpoint_flapping('100 years')")],
                (await projector.explain(some_id)).as_dict(),
                (await projector.explain(some_id, at=moments_here[0])).columns,
                await projector.census(),
                await reader.search(some_id[:1], "", 10),
                (await reader.sessions(some_id, None, 10))[1],
                [_of_events(row) for row in (await reader.changes(some_id, None, 10))[1].rows],
                _of_events(await reader.state(some_id) or ""),
            ]
        )
        reader.close()
    for distributedly, locally in zip(*answers, strict=True):
        assert distributedly == locally
        assert distributedly


def _of_events(row: str) -> dict[str, Any]:
    """Return what does not depend on when a daemon committed."""
    return {name: value for name, value in json.loads(row).items() if name not in ("committed_at", "changes_since")}


async def test_no_statement_of_the_hot_path_reads_all_shards_or_moves_rows_between_them(
    distributed: Scene, fleet: list[Wire]
) -> None:
    await distributed.publish(*fleet)
    await distributed.fold(changes="7d")
    endpoint_ids = [row[0] for row in await distributed.table()]
    store = Store(distributed.database_url)
    await store.open()
    connection, dialect = store._connection, store._dialect
    queries = await dialect.queries(connection, "endpoint_state", dict.fromkeys(endpoint_ids, 31))
    assert len(queries) == citus.SHARDS
    found = set()
    for query, *arguments in queries:
        found |= {row[0] for row in await connection.fetch(query, *arguments)}
        plan = await _planned(connection, query, "text[], integer", _array(arguments[0]), "31")
        assert plan["Distributed Query"]["Job"]["Task Count"] == 1
        assert "Subplans" not in plan["Distributed Query"]
    assert found == set(endpoint_ids)
    # Each worker merges the rows of its own shards: collecting them first would take a plan of its own.
    for statement in (
        statements.merge("endpoint_state", BATCH_TABLE),
        f"DELETE FROM {BATCH_TABLE} WHERE part = $1",
    ):
        plan = await _planned(connection, statement, "bigint", "1")
        assert plan["Custom Plan Provider"] == "Citus Adaptive"
        assert "Subplans" not in plan["Distributed Query"]
    await store.close()
    assert await distributed.query(f"SELECT count(*) FROM {BATCH_TABLE}") == [(0,)]


async def _planned(connection: Any, statement: str, types: str, *arguments: str) -> dict[str, Any]:
    await connection.execute(f"PREPARE hot ({types}) AS {statement}")
    ((plan,),) = await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE hot({', '.join(arguments)})")
    await connection.execute("DEALLOCATE hot")
    top = json.loads(plan)[0]["Plan"]
    assert top["Node Type"] == "Custom Scan", top
    return dict(top)


def _array(items: list[str]) -> str:
    return f"'{{{','.join(items)}}}'"


async def test_a_message_that_a_worker_rejects_is_parked_alone(distributed: Scene, event: Event) -> None:
    await distributed.query("ALTER TABLE endpoint_state ADD CONSTRAINT wrong CHECK (endpoint_id <> 'e1')")
    await distributed.publish(*(event("connectivity.connected", f"e{number}") for number in range(4)))
    await distributed.fold()
    assert await distributed.dead_letters() == [(2, "database-rejected")]
    assert [row[0] for row in await distributed.table()] == ["e0", "e2", "e3"]
    await distributed.query("ALTER TABLE endpoint_state DROP CONSTRAINT wrong")
    projector = Projector(distributed.settings())
    assert [retried async for retried in projector.retry_dead_letters(Selection(positions=(2,)))]
    assert len(await distributed.table()) == 4
    assert (await projector.verify()).clean


GRANTS = """
GRANT USAGE, CREATE ON SCHEMA public TO {role};
GRANT SELECT ON projector_migration TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON endpoint_state TO {role};
GRANT SELECT, INSERT, UPDATE ON projector_checkpoint, dead_letter TO {role};
GRANT INSERT, SELECT ON endpoint_change TO {role};
GRANT EXECUTE ON FUNCTION endpoint_change_maintain(interval) TO {role};
"""


async def test_a_role_that_does_not_own_the_tables_folds_and_rebuilds(
    distributed: Scene, fleet: list[Wire], query: Query
) -> None:
    role = f"daemon_{secrets.token_hex(4)}"
    owners_url = distributed.database_url
    url = owners_url.replace("postgres@", f"{role}@")
    await query(owners_url, f"CREATE ROLE {role} LOGIN")
    for grant in GRANTS.format(role=role).strip().split("\n"):
        await query(owners_url, grant)
    await distributed.publish(*fleet)
    unsaved = Projector(distributed.settings(url, changes="7d"))
    (found,) = [one.what for one in (await unsaved.doctor()).findings if one.name == "privileges"]
    assert f"INSERT on {BATCH_TABLE}" in found
    await distribution.keep_up(owners_url)
    assert "privileges" not in {one.name for one in (await unsaved.doctor()).findings}
    await distributed.fold(url=url, changes="7d")
    before = await distributed.table()
    await query(owners_url, "DELETE FROM endpoint_state WHERE endpoint_id = $1", before[0][0])
    report = await Projector(distributed.settings(url)).rebuild()
    assert report.differences.missing == 1
    assert await distributed.table() == before


async def test_every_commit_is_one_on_all_nodes(distributed: Scene, event: Event) -> None:
    recorded = "SELECT count(*) FROM pg_dist_transaction"
    ((before,),) = await distributed.query(recorded)
    await distributed.publish(event("connectivity.connected", "e1"))
    await distributed.fold()
    ((after,),) = await distributed.query(recorded)
    assert after > before  # even with rows for one worker only


async def test_nothing_is_folded_before_a_worker_has_committed_what_the_coordinator_has(
    distributed: Scene, cluster: list[EmbeddedPostgres], event: Event
) -> None:
    await distributed.publish(event("connectivity.connected", "e1"))
    worker = cluster[1].url_of(distributed.database_url.partition("@/")[2].partition("?")[0])
    await servers.execute(worker, "BEGIN; CREATE TABLE unfinished (); PREPARE TRANSACTION 'citus_0_1_1_1'")
    daemon = distributed.follow()
    await daemon.hears("retrying")
    assert "has not committed yet" in str(daemon.recorder.errors[0])
    assert await distributed.table() == []
    await servers.execute(worker, "ROLLBACK PREPARED 'citus_0_1_1_1'")
    await daemon.hears("caught up at 1")
    await daemon.stop()


async def test_nothing_is_divided_before_a_worker_has_committed_what_the_coordinator_has(
    distributed: Scene, cluster: list[EmbeddedPostgres], event: Event
) -> None:
    await distributed.publish(event("connectivity.connected", "e1"))
    await distributed.fold()
    worker = cluster[1].url_of(distributed.database_url.partition("@/")[2].partition("?")[0])
    await servers.execute(worker, "BEGIN; CREATE TABLE unfinished (); PREPARE TRANSACTION 'citus_0_1_1_2'")
    with pytest.raises(DatabaseUnavailableError, match="has not committed yet"):
        await Projector(distributed.settings()).init(shards=2)
    await servers.execute(worker, "ROLLBACK PREPARED 'citus_0_1_1_2'")
    await Projector(distributed.settings()).init(shards=2)


async def test_a_session_ends_when_a_worker_could_not_commit(distributed: Scene) -> None:
    store = Store(distributed.database_url)
    await store.open()
    warn = "DO $$ BEGIN RAISE WARNING 'failed to commit transaction on worker:5432'; END $$"
    with pytest.raises(DatabaseUnavailableError, match="has not committed yet"):
        async with store.transaction():
            await store._connection.execute(warn)
    await store.close()


async def test_a_rebuild_beside_a_daemon_and_a_worker_that_is_killed_change_nothing(
    distributed: Scene, cluster: list[EmbeddedPostgres], database_url: str, fleet: list[Wire], eventually: Eventually
) -> None:
    async def has_folded(position: int) -> bool:
        return await distributed.position() == position

    daemon = distributed.follow(batch_size=20)
    await daemon.hears("active")
    projector = Projector(distributed.settings())
    await distributed.publish(*fleet[:400])
    await eventually(lambda: has_folded(400))
    rebuilding = asyncio.create_task(projector.rebuild())
    await distributed.publish(*fleet[400:800])
    assert (await rebuilding).clean
    await eventually(lambda: has_folded(800))
    cluster[1].kill()
    await distributed.publish(*fleet[800:])
    await daemon.hears("retrying")
    cluster[1].start()
    await eventually(lambda: has_folded(len(fleet)))
    await daemon.stop()
    await distributed.fold(url=database_url)
    assert await distributed.table() == await distributed.table(database_url)
    assert (await projector.verify()).clean


async def test_tables_with_rows_are_distributed_by_init_once(
    scene: Scene, undistributed_url: str, fleet: list[Wire]
) -> None:
    scene = replace(scene, database_url=undistributed_url)
    await scene.publish(*fleet[:500])
    await scene.fold(changes="7d")
    before, logged = await scene.table(), await scene.query(LOGGED)
    projector = Projector(scene.settings())
    await projector.init()
    assert await scene.query("SELECT count(*) FROM citus_tables") == [(0,)]
    for _ in range(2):
        await projector.init(distribute=True)
    await projector.init()
    assert await scene.table() == before
    assert await scene.query(LOGGED) == logged
    groups = await scene.query("SELECT DISTINCT distribution_column, colocation_id FROM citus_tables")
    assert [column for column, _ in groups] == ["endpoint_id"]
    await scene.publish(*fleet[500:])
    await scene.fold(changes="7d")
    assert (await projector.verify()).clean


async def test_a_standby_connects_again_if_the_tables_were_distributed_while_it_waited(undistributed_url: str) -> None:
    standby = Store(undistributed_url)
    await standby.open()
    await distribution.distribute(undistributed_url)
    with pytest.raises(DatabaseUnavailableError, match="was distributed"):
        await standby.lead()
    await standby.open()
    assert await standby.lead()
    await standby.close()


async def test_several_shards_of_a_distributed_table_end_like_one_of_a_local_table(
    distributed: Scene, database_url: str, fleet: list[Wire]
) -> None:
    projector, local = Projector(distributed.settings(changes="7d")), Projector(distributed.settings(database_url))
    for shards, start in ((3, 0), (2, 600)):
        await distributed.publish(*fleet[start : start + 600], MALFORMED)
        await projector.init(shards=shards)
        await distributed.fold(changes="7d")
        await distributed.fold(url=database_url)
        table = await distributed.table(database_url)
        assert await distributed.table() == table
        ids = [row[0] for row in table[:3]]
        await distributed.query("UPDATE endpoint_state SET app_version = 'wrong' WHERE endpoint_id = ANY ($1)", ids)
        report = await projector.rebuild()
        assert report.differences is not None
        assert report.differences.different == len(ids)
        assert await distributed.table() == table
    assert (await projector.verify()).clean
    assert (await local.verify()).clean
    assert await distributed.dead_letters() == [(601, "malformed-payload"), (1202, "malformed-payload")]
    corrected = "SELECT count(*) FROM endpoint_change WHERE verdict = 'corrected' AND facet = 'application'"
    assert await distributed.query(corrected) == [(6,)]


async def test_the_changes_are_published(distributed: Scene, fleet: list[Wire]) -> None:
    await distributed.publish(*fleet[:200])
    settings = {"changes": "7d", "publish": "twin"}
    await Projector(distributed.settings(**settings)).init()
    await distributed.fold(**settings)
    ((applied,),) = await distributed.query("SELECT count(*) FROM endpoint_change WHERE verdict = 'applied'")
    status = await Projector(distributed.settings(**settings)).status()
    assert status.publish is not None
    assert status.publish["lag_commits"] == 0
    assert applied


async def test_no_change_is_passed_over_that_a_worker_has_not_committed_yet(
    distributed: Scene, cluster: list[EmbeddedPostgres], event: Event
) -> None:
    await distributed.publish(event("connectivity.connected", "e1"))
    await distributed.fold(changes="7d")
    worker = cluster[1].url_of(distributed.database_url.partition("@/")[2].partition("?")[0])
    begin = FeedCursor(0, Place(0), 0)
    await servers.execute(worker, "BEGIN; CREATE TABLE unfinished (); PREPARE TRANSACTION 'citus_0_1_1_3'")
    async with feed.opened(distributed.database_url) as log:
        with pytest.raises(DatabaseUnavailableError, match="has not committed yet"):
            await log.read(begin)
        await servers.execute(worker, "ROLLBACK PREPARED 'citus_0_1_1_3'")
        assert [change.endpoint_id for change in (await log.read(begin)).changes] == ["e1"]


async def test_doctor_finds_nothing_in_a_distributed_database(distributed: Scene, fleet: list[Wire]) -> None:
    await distributed.publish(*fleet)
    await distributed.fold()
    projector = Projector(distributed.settings())
    assert {found.name for found in (await projector.doctor()).findings} <= {
        "fsync-off",
        "full-page-writes-off",
    } | FAULTS
    await distributed.query(f"DROP TABLE {BATCH_TABLE}")
    assert "batch-table-missing" in {found.name for found in (await projector.doctor()).findings}
    await distribution.keep_up(distributed.database_url)
    assert "batch-table-missing" not in {found.name for found in (await projector.doctor()).findings}
    status = await projector.status()
    assert (status.endpoints, status.lag_messages) == (40, 0)


async def test_a_database_without_the_extension_is_refused(database_url: str) -> None:
    with pytest.raises(NotDistributableError, match="does not have the extension Citus; create it"):
        await distribution.check_server(database_url)


async def test_a_worker_is_refused(coordinator: EmbeddedPostgres, undistributed_url: str) -> None:
    _, worker, _ = citus.sockets(coordinator)
    url = undistributed_url.partition("?")[0] + f"?host={worker}"
    with pytest.raises(NotDistributableError, match="a worker of Citus; name the coordinator"):
        await distribution.check_server(url)


async def test_a_coordinator_without_workers_is_told_to_add_them(coordinator: EmbeddedPostgres) -> None:
    name = f"alone_{secrets.token_hex(4)}"
    await servers.execute(coordinator.url, f"CREATE DATABASE {name} TEMPLATE template0")
    url = coordinator.url_of(name)
    await servers.execute(url, "CREATE EXTENSION citus")
    with pytest.raises(NotDistributableError, match="no node that may hold shards; add the workers"):
        await distribution.check_server(url)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("create_distributed_table('endpoint_state', 'app_version')", "by app_version"),
        ("create_reference_table('endpoint_state')", "as a reference table"),
    ],
)
async def test_a_table_that_is_distributed_otherwise_is_refused(
    undistributed_url: str, query: Query, how: str, named: str
) -> None:
    await query(undistributed_url, "ALTER TABLE endpoint_state DROP CONSTRAINT endpoint_state_pkey")
    await query(undistributed_url, f"SELECT {how}")
    with pytest.raises(NotDistributableError, match=rf"endpoint_state is distributed {named}.*undistribute_table"):
        await distribution.distribute(undistributed_url)


async def test_distributed_tables_go_back_to_one_machine(distributed: Scene, query: Query, fleet: list[Wire]) -> None:
    await distributed.publish(*fleet[:200])
    await distributed.fold(changes="7d")
    for statement in (
        "SELECT undistribute_table('endpoint_change')",
        "SELECT undistribute_table('endpoint_state')",
        "DROP TABLE endpoint_state_batch",
    ):
        await query(distributed.database_url, statement)
    await distribution.keep_up(distributed.database_url)
    await distributed.publish(*fleet[200:300])
    await distributed.fold(changes="7d")
    assert (await Projector(distributed.settings(changes="7d")).verify()).clean
    await distribution.distribute(distributed.database_url)
    assert (await Projector(distributed.settings(changes="7d")).verify()).clean


async def test_nothing_is_distributed_while_a_daemon_or_a_rebuild_runs(distributed: Scene) -> None:
    daemon = distributed.follow()
    await daemon.hears("active")
    with pytest.raises(
        ProjectorRunningError, match=r"or distributed while a projector runs: projector writer .*; stop"
    ):
        await distribution.distribute(distributed.database_url)
    await daemon.stop()
    staging = Staging(distributed.database_url, "rebuild")
    await staging.open()
    with pytest.raises(RebuildRunningError):
        await distribution.distribute(distributed.database_url)
    await staging.close()
