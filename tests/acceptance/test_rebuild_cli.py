import asyncio
import json
import re
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

import projector
from projector.dev.simulation import Simulation, simulate
from projector.domain.rules import RULES_VERSION
from projector.runtime import Projector
from projector.settings import Settings, load
from tests.support.command_line import CommandLine, Running
from tests.support.fixtures import Event, Eventually, Publish, Query, Rows

REPOSITORY = Path(projector.__file__).parents[1]
STREAM = "KAA_ENDPOINT_EVENTS"
REBUILDING = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^projector rebuild'"
)
TABLE = "SELECT * FROM endpoint_state ORDER BY endpoint_id"


class World:
    """A stream and a database, and the actions of a test on them."""

    def __init__(self, command: CommandLine, jetstream: JetStreamContext, query: Query, eventually: Eventually) -> None:
        self.command = command
        self.jetstream = jetstream
        self._url = command.environment["PROJECTOR_DATABASE_URL"]
        self._query = query
        self._eventually = eventually

    def settings(self, **changed: str) -> Settings:
        """The settings of the command line, or changed ones."""
        flags = {"nats_url": self.command.environment["PROJECTOR_NATS_URL"], "database_url": self._url, "http": "off"}
        return load(flags | changed, config=None, fallback=None)

    async def fold(self, **changed: str) -> None:
        """Fold the stream to its end."""
        await Projector(self.settings(**changed)).run(until_caught_up=True)

    async def sql(self, statement: str, *arguments: object) -> Rows:
        return await self._query(self._url, statement, *arguments)

    async def holds(self, condition: str, *arguments: object) -> None:
        """Return once a query finds something."""
        await self._eventually(lambda: self.sql(condition, *arguments))

    async def rebuilds_or_has_rebuilt(self, rebuild: Running) -> None:
        """Return once a rebuild has connected, or is over: it may end before anyone has looked."""

        async def is_seen() -> bool:
            return rebuild.has_ended or bool(await self.sql(REBUILDING))

        await self._eventually(is_seen)

    async def no_rebuild_runs(self) -> None:
        """Return once the server has noticed that a killed rebuild is gone."""
        await self.holds(f"SELECT WHERE NOT EXISTS ({REBUILDING})")

    async def nobody_leads(self) -> None:
        """Return once the server has noticed that every daemon has ended: until then it keeps their locks."""
        locks = "SELECT FROM pg_locks JOIN pg_database ON oid = database WHERE locktype = 'advisory'"
        await self.holds(f"SELECT WHERE NOT EXISTS ({locks} AND datname = current_database())")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self._url)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def held_rebuild(self) -> AsyncIterator[Running]:
        """Start a rebuild that, within the block, has changed everything and committed nothing."""
        async with self.connected() as connection, connection.transaction():
            await connection.execute("LOCK TABLE dead_letter IN SHARE MODE")
            rebuild = await self.command.start("rebuild")
            await self.holds(f"{REBUILDING} AND wait_event_type = 'Lock'")
            yield rebuild


@pytest.fixture
def world(prepared: CommandLine, nats_client: Client, query: Query, eventually: Eventually) -> World:
    return World(prepared, nats_client.jetstream(), query, eventually)


@pytest.fixture
def undisturbed(world: World, other_database_url: str, query: Query) -> Callable[[], Awaitable[Rows]]:
    """Folds the whole stream once into another database, and returns the table."""

    async def undisturbed() -> Rows:
        await world.fold(database_url=other_database_url, consumer="undisturbed")
        return await query(other_database_url, TABLE)

    return undisturbed


@pytest.fixture
def kettles(event: Event) -> Callable[..., list[Any]]:
    """Builds one registration for each of a number of endpoints, from kettle-000 on."""
    return lambda count: [
        event("lifecycle.registered", f"kettle-{number:03}", appVersionName="1") for number in range(count)
    ]


async def test_differences_are_found_shown_and_repaired(world: World, publish: Publish, kettles: Any) -> None:
    await publish(*kettles(40))
    await world.fold()
    right = await world.sql(TABLE)
    await world.sql("UPDATE endpoint_state SET app_version = '2' WHERE endpoint_id < 'kettle-003'")
    await world.sql("UPDATE endpoint_state SET registered_at = NULL WHERE endpoint_id = 'kettle-002'")
    await world.sql("DELETE FROM endpoint_state WHERE endpoint_id >= 'kettle-038'")
    await world.sql(
        "INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at) VALUES ('foreign', 3, '2026-01-01')"
    )

    found = await world.command("verify", "--sample", "2")
    assert found.code == 1
    assert "6 differences: 2 rows missing, 1 extra, 3 different" in found.out
    assert counted(found.out) == {"app_version": 3, "registered_at": 1}
    assert re.findall(r"endpoint (\S+) \((\w+)\)", found.out) == [("foreign", "extra"), ("kettle-000", "different")]

    found = await world.command("verify", "--json", "--endpoint", "kettle-002")
    assert found.code == 1
    answer = json.loads(found.out)
    assert (answer["clean"], answer["compared"], answer["replayed"], answer["position"]) == (False, 41, 40, 40)
    assert (answer["missing"], answer["extra"], answer["different"]) == (2, 1, 3)
    assert answer["by_column"] == {"app_version": 3, "registered_at": 1}
    (row,) = answer["rows"]
    assert (row["endpoint_id"], row["kind"]) == ("kettle-002", "different")
    assert row["columns"]["app_version"] == {"found": "2", "implied": "1"}
    assert row["columns"]["registered_at"]["found"] is None
    (message,) = answer["messages"]
    assert (message["position"], message["event"], message["says"]) == (3, "Registered", {"app_version": "1"})

    mended = await world.command("rebuild", PROJECTOR_BATCH_SIZE="7")
    assert (mended.code, mended.err) == (0, "")
    assert "6 differences: 2 rows inserted, 1 deleted, 3 updated" in mended.out
    assert counted(mended.out) == {"app_version": 3, "registered_at": 1}
    assert await world.sql(TABLE) == right

    proved = await world.command("verify")
    assert proved.code == 0
    assert "0 differences: the table is what the stream implies" in proved.out


def counted(report: str) -> dict[str, int]:
    """Return how many rows differ, by column."""
    return {name: int(count) for name, count in re.findall(r"^\| (\w+) +\| (\d+) +\|$", report, re.MULTILINE)}


async def test_rows_of_other_rules_are_refused_until_a_rebuild(world: World, publish: Publish, kettles: Any) -> None:
    await publish(*kettles(3))
    await world.fold()
    await world.sql("UPDATE projector_checkpoint SET rules_version = 7")
    refused = await world.command("run", "--until-caught-up")
    assert refused.code == 3
    assert "rules version 7" in refused.err
    assert "projector rebuild" in refused.err
    assert (await world.command("rebuild")).code == 0
    await world.fold()


@pytest.fixture
def other_rules(tmp_path: Path) -> Path:
    """A copy of the code in which a connect does not set the version, with another rules version."""
    code = tmp_path / "other"
    for name in ("projector", "migrations", "schemas"):
        shutil.copytree(REPOSITORY / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    module = code / "projector" / "domain" / "application.py"
    source = module.read_text()
    take = "take(state.version, event.app_version, event.stamp)"
    changed = source.replace(
        f"version = {take}", f"version = {take} if isinstance(event, Registered) else state.version", 1
    )
    assert changed != source
    module.write_text(changed)
    rules = code / "projector" / "domain" / "rules.py"
    source = rules.read_text()
    rules.write_text(source.replace(f"RULES_VERSION = {RULES_VERSION}\n", f"RULES_VERSION = {RULES_VERSION + 1}\n"))
    assert rules.read_text() != source
    return code


async def test_changed_reducer_is_refused_until_a_rebuild_that_stops_the_old_daemon(
    world: World, publish: Publish, event: Event, other_rules: Path
) -> None:
    await publish(
        *[event("lifecycle.registered", one, appVersionName="1", timestamp=1000) for one in ("both", "same", "silent")],
        event("connectivity.connected", "both", appVersionName="2", timestamp=2000),
        event("connectivity.connected", "same", appVersionName="1", timestamp=2000),
        event("connectivity.connected", "silent", appVersionName="", timestamp=2000),
        event("connectivity.connected", "only", appVersionName="2", timestamp=2000),
    )
    daemon = await world.command.start("run")
    await daemon.logs("caught up")
    waiting = await world.command.start("run", PYTHONPATH=str(other_rules))
    await waiting.logs("standing by")
    before: dict[str, str] = dict(await world.sql("SELECT endpoint_id, xmin::text FROM endpoint_state"))

    rebuilt = await world.command("rebuild", PYTHONPATH=str(other_rules))
    assert rebuilt.code == 0
    assert "3 differences: 0 rows inserted, 0 deleted, 3 updated" in rebuilt.out
    assert counted(rebuilt.out) == {"app_version": 2, "app_version_changed_at": 3, "application_registers": 3}
    assert await world.sql("SELECT endpoint_id, app_version FROM endpoint_state ORDER BY 1") == [
        ("both", "1"),
        ("only", None),
        ("same", "1"),
        ("silent", "1"),
    ]
    after: dict[str, str] = dict(await world.sql("SELECT endpoint_id, xmin::text FROM endpoint_state"))
    assert after["silent"] == before["silent"]

    await publish(event("connectivity.connected", "silent", appVersionName="3", timestamp=3000))
    ended = await daemon.end()
    assert ended.code == 3
    assert "projector rebuild" in ended.err
    await waiting.logs("caught up")
    assert await world.sql("SELECT app_version FROM endpoint_state WHERE endpoint_id = 'silent'") == [("1",)]
    waiting.send(signal.SIGTERM)
    assert (await waiting.end()).code == 0
    refused = await world.command("run", "--until-caught-up")
    assert refused.code == 3
    assert "projector rebuild" in refused.err


async def test_a_recreated_stream_is_refused_until_a_rebuild_accepts_it(
    world: World, publish: Publish, kettles: Any, undisturbed: Any
) -> None:
    await publish(*kettles(3))
    await world.fold()
    config = (await world.jetstream.stream_info(STREAM)).config
    await world.jetstream.delete_stream(STREAM)
    await world.jetstream.add_stream(config)
    await publish(*kettles(5)[2:])
    refused = await world.command("run", "--until-caught-up")
    assert refused.code == 3
    assert "is not the one that was folded" in refused.err
    await world.nobody_leads()  # else the rebuild leaves the position as it is
    accepted = await world.command("rebuild")
    assert accepted.code == 0
    assert "5 differences: 2 rows inserted, 2 deleted, 1 updated" in accepted.out
    right = await undisturbed()
    assert [row[0] for row in right] == ["kettle-002", "kettle-003", "kettle-004"]
    await world.fold()


async def test_trimmed_stream_is_refused_with_its_figures_unless_accepted(
    world: World, publish: Publish, kettles: Any
) -> None:
    await publish(*kettles(20))
    await world.fold()
    right = await world.sql(TABLE)
    await world.jetstream.purge_stream(STREAM, seq=16)
    await world.sql("UPDATE endpoint_state SET app_version = '2' WHERE endpoint_id = 'kettle-000'")
    await world.sql("DELETE FROM endpoint_state WHERE endpoint_id = 'kettle-019'")
    refused = await world.command("rebuild")
    assert refused.code == 3
    assert "begins at position 16, and 15 of its messages are gone" in refused.err
    assert "--accept-trimmed" in refused.err
    accepted = await world.command("rebuild", "--accept-trimmed")
    assert accepted.code == 0
    assert "2 differences: 1 rows inserted, 0 deleted, 1 updated" in accepted.out
    assert await world.sql(TABLE) == right


@pytest.fixture(params=["in the foreground", "in the background"])
def started(request: pytest.FixtureRequest) -> Iterator[None]:
    """How commands are started: a script starts a job in the background with SIGINT ignored."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN if request.param == "in the background" else signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_interrupted_rebuild_changes_nothing_and_cleans_up(
    number: signal.Signals, world: World, publish: Publish, kettles: Any
) -> None:
    await publish(*kettles(20))
    await world.fold()
    await world.sql("UPDATE endpoint_state SET app_version = '2'")
    wrong = await world.sql(TABLE)
    async with world.held_rebuild() as rebuild:
        rebuild.send(number)
        assert (await rebuild.insist(signal.SIGTERM)).code == 130
    assert await world.sql(TABLE) == wrong
    assert await world.sql("SELECT relname FROM pg_class WHERE relname LIKE '%rebuild%'") == []


async def test_killed_rebuild_leaves_the_table_unchanged_or_repaired(
    world: World, publish: Publish, kettles: Any
) -> None:
    await publish(*kettles(999), *kettles(999))
    await world.fold()
    right = await world.sql(TABLE)

    async def corrupt() -> Any:
        await world.sql("UPDATE endpoint_state SET app_version = '2'")
        await world.sql("DELETE FROM endpoint_state WHERE endpoint_id < 'kettle-500'")
        return await world.sql(TABLE)

    wrong = await corrupt()
    async with world.held_rebuild() as rebuild:
        assert (await rebuild.kill()).code == -signal.SIGKILL
    await world.no_rebuild_runs()
    assert await world.sql(TABLE) == wrong

    moments = Random(3)  # noqa: S311 - moments, not secrets
    for _ in range(4):
        rebuild = await world.command.start("rebuild", PROJECTOR_BATCH_SIZE="50")
        await world.rebuilds_or_has_rebuilt(rebuild)
        await asyncio.sleep(moments.uniform(0, 0.4))
        await rebuild.kill()
        await world.no_rebuild_runs()
        found = await world.sql(TABLE)
        assert found in (wrong, right)
        if found == right:
            assert await corrupt() == wrong

    assert (await world.command("rebuild")).code == 0
    assert await world.sql(TABLE) == right
    assert await world.sql("SELECT relname FROM pg_class WHERE relname LIKE '%rebuild%'") == []


@asynccontextmanager
async def counting_rows(connection: asyncpg.Connection) -> AsyncIterator[list[int]]:
    """Count rows continuously within the block; a failed statement fails the block."""
    counts: list[int] = []
    over = asyncio.Event()

    async def count() -> None:
        while not over.is_set():
            counts.append(await connection.fetchval("SELECT count(*) FROM endpoint_state"))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(count())
        yield counts
        over.set()


def is_stall(entry: dict[str, Any]) -> bool:
    """Tell whether a server did not answer for seconds; a disturbing rebuild would hold a lock or move a checkpoint."""
    of_the_broker = {"BrokerUnavailableError", "DeliveryInterruptedError"}
    return entry["event"] == "retrying" and (
        entry["error"] in of_the_broker or entry["reason"] == "Postgres did not answer in time"
    )


async def test_rebuild_does_not_disturb_a_loaded_daemon_and_readers(world: World, undisturbed: Any) -> None:
    await simulate(world.settings(), Simulation(endpoints=500, seed=1, events=3000), asyncio.Event())
    daemon = await world.command.start("run")
    await daemon.logs("caught up")
    fleet = await world.command.start("simulate", "--rate", "400", "--endpoints", "500", "--skip", "3000")
    await world.holds("SELECT FROM projector_checkpoint WHERE position > 3100")
    async with world.connected() as connection, counting_rows(connection) as counts:
        rebuilt = await world.command("rebuild")
    assert (rebuilt.code, rebuilt.err) == (0, "")
    assert "0 differences" in rebuilt.out
    fleet.send(signal.SIGTERM)
    published = int(re.findall(r"\d+", (await fleet.end()).out)[0])
    await world.holds("SELECT FROM projector_checkpoint WHERE position = $1", 3000 + published)
    daemon.send(signal.SIGTERM)
    ended = await daemon.end()
    assert ended.code == 0
    events = [entry["event"] for entry in daemon.logged]
    assert (events[0], events[-2:]) == ("starting", ["stopping", "stopped"])
    # On a busy machine the daemon may lag for long enough to log again that it has caught up, and a server may stall.
    quiet = {"starting", "active", "caught up", "stopping", "stopped"}
    assert [entry for entry in daemon.logged if entry["event"] not in quiet and not is_stall(entry)] == []
    assert all(before <= after for before, after in pairwise(counts))
    assert await world.sql(TABLE) == await undisturbed()
