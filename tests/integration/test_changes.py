"""The log of changes, and the views and functions on it."""

import asyncio
import json
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import asyncpg
import pytest

from projector.dev.fleet import Fleet
from projector.domain.messages import Selection
from projector.errors import DatabaseUnavailableError
from projector.runtime import Projector
from projector.storage import change_log
from projector.storage.columns import FACET_COLUMNS
from projector.storage.tables import endpoint_state
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.support.fixtures import Event, Eventually, Rows, Wire
from tests.support.scene import Scene

VISIBLE = ", ".join(column.name for column in endpoint_state.columns if not column.name.endswith("_registers"))
FACETS = {facet.facet.name: [column.name for column in facet.columns] for facet in FACET_COLUMNS}
MALFORMED = (subjects.build("kpc", "connectivity.connected"), b"\xff")
NOW = "SELECT clock_timestamp()"


@pytest.fixture
def fleet(codec: Codec) -> list[Wire]:
    simulated = Fleet(endpoints=30, seed=7, start_at=1_700_000_000_000, interval_ms=100).events()
    return [
        (subjects.build(one.originator, one.event_type), codec.encode(one.event_type, one.record))
        for one in islice(simulated, 900)
    ]


async def changes(scene: Scene, columns: str = "*", where: str = "true") -> Rows:
    found = await scene.query(
        f"SELECT {columns} FROM endpoint_change WHERE {where} ORDER BY commit_no, position, endpoint_id, facet"
    )
    return [tuple(map(_decoded, row)) for row in found]


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


async def folded(scene: Scene) -> dict[str, dict[str, Any]]:
    """Return the rows that the log gives: `after` over the row before, in order."""
    rows: dict[str, dict[str, Any]] = {}
    for endpoint_id, before, after in await changes(scene, "endpoint_id, before, after"):
        if after is not None:
            rows.setdefault(endpoint_id, {}).update(after)
        elif before is not None:
            rows.pop(endpoint_id, None)
    return rows


async def as_json(scene: Scene) -> dict[str, dict[str, Any]]:
    found = await scene.query("SELECT endpoint_id, to_jsonb(endpoint_state) FROM endpoint_state")
    default = {"connectivity_status": "unknown", "registration_status": "unknown", "config_status": "none"}
    names = [name for columns in FACETS.values() for name in columns]
    return {
        endpoint_id: {
            name: row[name] for name in names if row[name] not in (None, {}) and row[name] != default.get(name)
        }
        for endpoint_id, row in ((endpoint_id, json.loads(row)) for endpoint_id, row in found)
    }


def without_defaults(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    default = {"connectivity_status": "unknown", "registration_status": "unknown", "config_status": "none"}
    return {
        endpoint_id: {
            name: value for name, value in row.items() if value not in (None, {}) and value != default.get(name)
        }
        for endpoint_id, row in rows.items()
    }


async def test_nothing_is_written_while_changes_are_off(scene: Scene, event: Event) -> None:
    await scene.publish(event("connectivity.connected", "e1"))
    await scene.fold()
    assert await changes(scene) == []
    assert await scene.query("SELECT commits, changes_since FROM projector_checkpoint") == [(1, None)]


async def test_an_event_leaves_a_change_for_each_facet_that_it_names(scene: Scene, event: Event) -> None:
    await scene.publish(event("connectivity.connected", "e1", appVersionName="v1", originatorReplicaId="kpc-1"))
    await scene.fold(changes="7d")
    columns = "shard, commit_no, endpoint_id, facet, verdict, position, event, originator, replica, before, after"
    origin = (1, "connectivity.connected", "kpc", "kpc-1")
    at = "2023-11-14T22:13:20+00:00"
    assert await changes(scene, columns) == [
        (0, 1, "e1", "application", "applied", *origin, None, {"app_version": "v1", "app_version_changed_at": at}),
        (
            0,
            1,
            "e1",
            "connectivity",
            "applied",
            *origin,
            None,
            {
                "connectivity_status": "connected",
                "connectivity_changed_at": at,
                "connected_at": at,
                "connected_originator": "kpc",
                "connected_replica": "kpc-1",
            },
        ),
    ]


async def test_a_change_has_only_the_columns_that_changed(scene: Scene, event: Event) -> None:
    await scene.publish(
        event("connectivity.connected", "e1", originatorReplicaId="kpc-1"),
        event(
            "connectivity.disconnected", endpointIds=["e1"], originatorReplicaId="kpc-1", timestamp=1_700_000_000_120
        ),
    )
    await scene.fold(changes="7d")
    ((before, after),) = await changes(scene, "before, after", "position = 2")
    assert before == {
        "connectivity_status": "connected",
        "connectivity_changed_at": "2023-11-14T22:13:20+00:00",
        "disconnected_at": None,
    }
    assert after == {
        "connectivity_status": "disconnected",
        "connectivity_changed_at": "2023-11-14T22:13:20.12+00:00",
        "disconnected_at": "2023-11-14T22:13:20.12+00:00",
    }


async def test_rejected_events_are_logged_with_their_verdict(scene: Scene, event: Event) -> None:
    await scene.publish(
        event("connectivity.connected", "e1", originatorReplicaId="kpc-1"),
        event(
            "connectivity.disconnected", endpointIds=["e1"], originatorReplicaId="kpc-2", timestamp=1_700_000_000_001
        ),
        event("connectivity.connected", "e1", originatorReplicaId="kpc-2", timestamp=1_600_000_000_000),
    )
    await scene.fold(changes="7d")
    assert await changes(scene, "verdict, before, after, previous_event_seq", "position > 1") == [
        ("fenced", None, None, 1),
        ("late", None, None, 2),
    ]


async def test_folding_what_came_after_gives_the_table(scene: Scene, fleet: list[Wire]) -> None:
    await scene.publish(*fleet)
    await scene.fold(changes="7d", batch_size=37)
    assert without_defaults(await folded(scene)) == await as_json(scene)


async def test_the_table_at_a_moment_is_what_it_was(scene: Scene, fleet: list[Wire]) -> None:
    seen: list[tuple[datetime, Rows]] = []
    for start in range(0, len(fleet), 90):
        await scene.publish(*fleet[start : start + 90])
        await scene.fold(changes="7d", batch_size=20)
        seen.append(
            ((await scene.query(NOW))[0][0], await scene.query(f"SELECT {VISIBLE} FROM endpoint_state ORDER BY 1"))
        )
    for moment, rows in seen:
        assert await scene.query(f"SELECT {VISIBLE} FROM endpoint_state_at($1) ORDER BY 1", moment) == rows
        some_id = rows[len(rows) // 2][0]
        asked = f"SELECT {VISIBLE} FROM endpoint_state_at($1) WHERE endpoint_id = $2"
        assert await scene.query(asked, moment, some_id) == [row for row in rows if row[0] == some_id]


async def test_open_sessions_are_the_connected_endpoints(scene: Scene, fleet: list[Wire]) -> None:
    await scene.publish(*fleet[:300])
    await scene.fold()
    await scene.publish(*fleet[300:])
    await scene.fold(changes="7d")
    open_sessions = await scene.query(
        "SELECT endpoint_id, connected_at, originator, replica FROM endpoint_session "
        "WHERE disconnected_at IS NULL ORDER BY 1"
    )
    assert open_sessions
    assert open_sessions == await scene.query(
        "SELECT endpoint_id, connected_at, connected_originator, connected_replica FROM endpoint_state "
        "WHERE connectivity_status = 'connected' ORDER BY 1"
    )


async def test_sessions_end_as_the_events_say(scene: Scene, event: Event) -> None:
    at = 1_700_000_000_000

    def connected(second: int, replica: str) -> Wire:
        return event("connectivity.connected", "e1", originatorReplicaId=replica, timestamp=at + second * 1000)

    def disconnected(second: int, replica: str) -> Wire:
        when = at + second * 1000
        return event("connectivity.disconnected", endpointIds=["e1"], originatorReplicaId=replica, timestamp=when)

    await scene.publish(connected(0, "a"))
    await scene.fold()  # before the log begins
    await scene.publish(disconnected(5, "a"), connected(10, "b"), connected(20, "c"), disconnected(21, "b"))
    await scene.publish(disconnected(30, "c"), connected(40, "a"))
    await scene.fold(changes="7d")
    asked = """
    SELECT extract(epoch FROM connected_at)::integer - $1, extract(epoch FROM disconnected_at)::integer - $1,
           extract(epoch FROM duration)::integer, replica, ended_by
    FROM endpoint_session WHERE endpoint_id = 'e1' ORDER BY connected_at
    """
    assert await scene.query(asked, at // 1000) == [
        (0, 5, 5, "a", "disconnected"),
        (10, 20, 10, "b", "superseded"),
        (20, 30, 10, "c", "disconnected"),
        (40, None, None, "a", None),
    ]


async def test_a_session_that_ended_is_not_open_although_its_row_was_deleted_by_hand(
    scene: Scene, event: Event
) -> None:
    def connected(second: int) -> Wire:
        return event(
            "connectivity.connected", "e1", originatorReplicaId="a", timestamp=1_700_000_000_000 + second * 1000
        )

    await scene.publish(connected(0))
    await scene.publish(
        event("connectivity.disconnected", endpointIds=["e1"], originatorReplicaId="a", timestamp=1_700_000_005_000)
    )
    await scene.publish(connected(10))
    await scene.fold(changes="7d")
    await scene.query("DELETE FROM endpoint_state")
    await scene.publish(connected(20))
    await scene.fold(changes="7d")
    ended = await scene.query(
        "SELECT ended_by FROM endpoint_session WHERE disconnected_at IS NOT NULL ORDER BY connected_at"
    )
    assert ended[0] == ("disconnected",)
    assert len(await scene.query("SELECT FROM endpoint_session WHERE disconnected_at IS NULL")) == 1


async def test_flapping_counts_the_sessions_that_began(scene: Scene, event: Event) -> None:
    ((now,),) = await scene.query(NOW)
    at = int(now.timestamp() * 1000) - 60_000
    await scene.publish(
        *(event("connectivity.connected", "often", originatorReplicaId=f"r{n}", timestamp=at + n) for n in range(5)),
        event("connectivity.connected", "once", originatorReplicaId="r", timestamp=at),
        event("connectivity.connected", "before", originatorReplicaId="r", timestamp=at - 3_600_000),
    )
    await scene.fold(changes="7d")
    found = await scene.query(
        "SELECT endpoint_id, sessions, known_since IS NOT NULL FROM endpoint_flapping('10 minutes')"
    )
    assert found == [("often", 5, True), ("once", 1, True)]


async def test_a_moment_before_the_log_begins_is_refused(scene: Scene, event: Event) -> None:
    await scene.publish(event("connectivity.connected", "e1"))
    await scene.fold()
    with pytest.raises(asyncpg.PostgresError, match="changes are not recorded"):
        await scene.query("SELECT * FROM endpoint_state_at(now())")
    ((before,),) = await scene.query(NOW)
    await scene.fold(changes="7d")
    with pytest.raises(asyncpg.PostgresError, match="the log of changes begins at"):
        await scene.query("SELECT * FROM endpoint_state_at($1)", before)
    assert len(await scene.query("SELECT * FROM endpoint_state_at(now())")) == 1


async def test_after_a_gap_the_log_begins_anew(scene: Scene, event: Event) -> None:
    for settings in ({"changes": "7d"}, {}, {"changes": "7d"}):
        await scene.publish(event("metadata.updated", "e1", added=[str(settings)]))
        ((before,),) = await scene.query("SELECT date_trunc('milliseconds', clock_timestamp())")
        await scene.fold(**settings)
    ((since, latest),) = await scene.query("SELECT endpoint_change_since(), max(committed_at) FROM endpoint_change")
    assert before <= since <= latest
    assert await changes(scene, "commit_no") == [(1,), (3,)]
    with pytest.raises(asyncpg.PostgresError, match="the log of changes begins at"):
        await scene.query("SELECT * FROM endpoint_state_at((SELECT min(committed_at) FROM endpoint_change))")


async def test_the_log_begins_with_the_first_commit_after_it_was_switched_on(scene: Scene, event: Event) -> None:
    """Even if the clock has stepped back behind the time of the checkpoint, which is not in whole milliseconds."""
    await scene.publish(event("connectivity.connected", "e1"))
    await scene.fold()
    await scene.query(
        "UPDATE projector_checkpoint "
        "SET advanced_at = date_trunc('milliseconds', clock_timestamp()) + interval '1 minute 0.5 milliseconds'"
    )
    await scene.publish(event("connectivity.connected", "e2"))
    await scene.fold(changes="7d")
    assert await changes(scene, "endpoint_id", "committed_at >= endpoint_change_since()") == [("e2",)]


async def test_a_rebuild_logs_what_it_corrects(scene: Scene, fleet: list[Wire]) -> None:
    await scene.publish(*fleet)
    await scene.fold(changes="7d")
    before = await scene.query(f"SELECT {VISIBLE} FROM endpoint_state ORDER BY 1")
    ids = [row[0] for row in before]
    await scene.query("UPDATE endpoint_state SET app_version = 'wrong' WHERE endpoint_id = $1", ids[0])
    await scene.query("DELETE FROM endpoint_state WHERE endpoint_id = $1", ids[1])
    await scene.query("UPDATE endpoint_state SET endpoint_id = 'nobody' WHERE endpoint_id = $1", ids[2])
    await scene.query("UPDATE endpoint_state SET last_event_seq = 1 WHERE endpoint_id = $1", ids[3])
    damaged = await scene.query(f"SELECT {VISIBLE} FROM endpoint_state ORDER BY 1")
    ((moment,),) = await scene.query(NOW)
    await Projector(scene.settings()).rebuild()  # it logs because the daemon did

    corrected = await changes(scene, "endpoint_id, facet, position, event", "verdict = 'corrected'")
    assert {row[0] for row in corrected} == {*ids[:4], "nobody"}
    assert {row[2:] for row in corrected} == {(None, None)}
    assert await changes(scene, "before, after", f"verdict = 'corrected' AND endpoint_id = '{ids[0]}'") == [
        ({"app_version": "wrong"}, {"app_version": before[0][7]})
    ]
    assert without_defaults(await folded(scene)) == await as_json(scene)
    assert await scene.query(f"SELECT {VISIBLE} FROM endpoint_state_at($1) ORDER BY 1", moment) == damaged
    assert await scene.query(f"SELECT {VISIBLE} FROM endpoint_state_at(now()) ORDER BY 1") == before


async def test_a_row_that_was_deleted_and_created_again_is_known_as_it_was(scene: Scene, event: Event) -> None:
    everything = f"SELECT {VISIBLE} FROM endpoint_state ORDER BY 1"
    await scene.publish(event("metadata.updated", "e1", added=["site"]))
    await scene.fold(changes="7d")
    await scene.query("UPDATE endpoint_state SET endpoint_id = 'e2'")
    seen = []
    for step in ("damaged", "rebuilt", "created again"):
        if step == "rebuilt":
            await Projector(scene.settings()).rebuild()
        elif step == "created again":
            await scene.publish(event("connectivity.connected", "e2", appVersionName="v1"))
            await scene.publish(event("config.updated", "e2", configId="c1"))
            await scene.fold(changes="7d")
        seen.append((await scene.query(everything), (await scene.query(NOW))[0][0]))
    for rows, moment in seen:
        assert await scene.query(f"SELECT {VISIBLE} FROM endpoint_state_at($1) ORDER BY 1", moment) == rows


async def test_a_retry_logs_a_correction(scene: Scene, event: Event) -> None:
    await scene.query("ALTER TABLE endpoint_state ADD CONSTRAINT wrong CHECK (endpoint_id <> 'e1')")
    await scene.publish(event("connectivity.connected", "e1"), event("connectivity.connected", "e2"))
    await scene.fold(changes="7d")
    await scene.query("ALTER TABLE endpoint_state DROP CONSTRAINT wrong")
    async for retried in Projector(scene.settings()).retry_dead_letters(Selection()):
        assert retried.parked_again is None
    assert await changes(scene, "commit_no, verdict, position, facet", "endpoint_id = 'e1'") == [
        (3, "corrected", None, "connectivity")
    ]
    assert without_defaults(await folded(scene)) == await as_json(scene)


async def test_a_retry_and_a_rebuild_make_a_missing_partition_and_drop_none(scene: Scene, event: Event) -> None:
    """As after days without a daemon, whatever the setting of the shell that they run in."""
    names = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'endpoint_change'::regclass ORDER BY 1"
    await scene.query("ALTER TABLE endpoint_state ADD CONSTRAINT wrong CHECK (endpoint_id <> 'e1')")
    await scene.publish(event("connectivity.connected", "e1"), event("connectivity.connected", "e2"))
    await scene.fold(changes="7d")
    await scene.query("ALTER TABLE endpoint_state DROP CONSTRAINT wrong")
    for (name,) in await scene.query(names):
        await scene.query(f"DROP TABLE {name}")
    await scene.query(
        "CREATE TABLE endpoint_change_20200101 PARTITION OF endpoint_change "
        "FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2020-01-02 00:00+00')"
    )
    assert [retried.parked_again async for retried in Projector(scene.settings()).retry_dead_letters(Selection())] == [
        None
    ]
    for (name,) in await scene.query(f"{names} OFFSET 1"):
        await scene.query(f"DROP TABLE {name}")
    for settings in ({}, {"changes": "1h"}):
        await scene.query("UPDATE endpoint_state SET app_version = 'wrong'")
        assert (await Projector(scene.settings(**settings)).rebuild()).differences.different == 2
    assert await changes(scene, "commit_no, verdict, facet", "before->>'app_version' = 'wrong'") == [
        (number, "corrected", "application") for number in (4, 4, 5, 5)
    ]
    assert ("endpoint_change_20200101",) in await scene.query(names)


async def test_a_commit_notifies_its_number(scene: Scene, event: Event, eventually: Eventually) -> None:
    heard: list[str] = []
    listener = await asyncpg.connect(scene.database_url)
    try:
        await listener.add_listener("endpoint_change", lambda *notification: heard.append(notification[-1]))
        await scene.publish(event("connectivity.connected", "e1"))
        await scene.fold(changes="7d")

        async def notified() -> bool:
            return heard == ["1"]

        await eventually(notified)
    finally:
        await listener.close()


async def test_partitions_are_made_ahead_and_dropped_in_time(scene: Scene) -> None:
    async def maintained(retention: str) -> Rows:
        return await scene.query(f"SELECT * FROM endpoint_change_maintain('{retention}')")

    connection = await asyncpg.connect(scene.database_url)
    try:
        await change_log.prepare(connection, timedelta(days=1))
        await connection.execute(
            "CREATE TABLE endpoint_change_20200101 PARTITION OF endpoint_change "
            "FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2020-01-02 00:00+00')"
        )
        assert await maintained("3650 days") == [(0, 0)]
        await connection.execute("DROP TABLE endpoint_change_20200101")
        await connection.execute(
            "CREATE TABLE endpoint_change_20200102 PARTITION OF endpoint_change "
            "FOR VALUES FROM ('2020-01-02 00:00+00') TO ('2020-01-03 00:00+00')"
        )
        assert await maintained("7 days") == [(0, 1)]
        partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'endpoint_change'::regclass"
        assert await connection.fetchval(partitions) == 4
    finally:
        await connection.close()


async def test_daemons_that_start_together_make_each_partition_once(scene: Scene) -> None:
    async def prepare() -> None:
        connection = await asyncpg.connect(scene.database_url)
        try:
            await change_log.prepare(connection, timedelta(days=1))
        finally:
            await connection.close()

    await asyncio.gather(*(prepare() for _ in range(4)))
    assert len(await scene.query("SELECT FROM pg_inherits WHERE inhparent = 'endpoint_change'::regclass")) == 4


async def test_a_daemon_waits_for_the_maintenance_of_another_longer_than_for_a_reader(
    scene: Scene, eventually: Eventually
) -> None:
    lock = "SELECT pg_advisory_lock(hashtextextended('endpoint_change_maintain', 0))"
    waiting = (
        "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'advisory' AND "
        "clock_timestamp() - query_start > interval '300 ms'"
    )
    other, connection = await asyncpg.connect(scene.database_url), await asyncpg.connect(scene.database_url)
    try:
        await other.execute(lock)
        preparing = asyncio.create_task(change_log.prepare(connection, timedelta(days=1)))

        async def waits_or_has_failed() -> bool:
            return preparing.done() or await other.fetchrow(waiting, connection.get_server_pid()) is not None

        await eventually(waits_or_has_failed)
        await other.execute("SELECT pg_advisory_unlock_all()")
        await preparing
    finally:
        await other.close()
        await connection.close()


async def test_a_missing_partition_is_made_by_the_next_session(scene: Scene, event: Event) -> None:
    """As after a standstill of days, or if an operator dropped it."""
    daemon = scene.follow(changes="7d")
    await daemon.hears("caught up at 0")
    partitions = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'endpoint_change'::regclass"
    for (name,) in await scene.query(partitions):
        await scene.query(f"DROP TABLE {name}")
    await scene.publish(event("connectivity.connected", "e1"))
    await daemon.hears("caught up at 1")
    recorder = await daemon.stop()
    assert [type(error) for error in recorder.errors] == [DatabaseUnavailableError]
    assert await scene.dead_letters() == []
    assert await changes(scene, "position", "facet = 'connectivity'") == [(1,)]
