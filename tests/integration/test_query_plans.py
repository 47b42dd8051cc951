"""The hot path, the HTTP API and explanations use the indexes, with any statistics of the tables."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from projector.domain.endpoint import FACETS
from projector.queries import endpoints, explanation
from projector.storage import statements
from projector.storage.store import Store
from tests.support.fixtures import Query
from tests.support.scene import Scene

# A plan is kept while the table grows, so a plan made for a single row must not be a scan either.
sizes = pytest.mark.parametrize("rows", [0, 1, 50_000])
analyzed = pytest.mark.parametrize(
    "preparation", ["ANALYZE endpoint_state", "SELECT 1"], ids=["analyzed", "never analyzed"]
)

FILL = """
INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at)
SELECT 'endpoint-' || number, number, now() FROM generate_series(1, $1::integer) AS number
"""
CHANGE = """
INSERT INTO saved_endpoint (part, endpoint_id, last_event_seq, last_event_at)
SELECT 1, 'endpoint-' || number * 3, number, now() FROM generate_series(1, $1::integer) AS number
"""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Any]:
    """The writer's own connection."""
    store = Store(database_url)
    await store.open()
    await store._connection.execute("SET idle_session_timeout = 0")  # it is idle while servers start
    yield store._connection
    await store.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def planned(connection: Any, statement: str, arguments: str) -> list[dict[str, Any]]:
    """Return the nodes of the plan that the writer would make and keep."""
    await connection.execute(f"PREPARE hot AS {statement}")
    ((plan,),) = await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE hot({arguments})")
    await connection.execute("DEALLOCATE hot")
    return list(nodes(json.loads(plan)[0]["Plan"]))


@sizes
@analyzed
@pytest.mark.parametrize("batch", [1, 8_000])
async def test_loading_a_batch_never_scans_the_table(connection: Any, rows: int, preparation: str, batch: int) -> None:
    await connection.execute(FILL, rows)
    await connection.execute(preparation)
    ids = f"'{{{','.join(f'endpoint-{number}' for number in range(batch))}}}'"
    facets = f"'{{{','.join(str(number % (1 << len(FACETS))) for number in range(batch))}}}'"
    plan = await planned(connection, statements.load("endpoint_state"), f"{ids}, {facets}")
    (reading,) = (node for node in plan if node.get("Relation Name") == "endpoint_state")
    # Without a condition, the whole table would be read in the order of its keys.
    assert (reading["Index Name"], "Index Cond" in reading) == ("endpoint_state_pkey", True), plan


@sizes
@analyzed
@pytest.mark.parametrize("batch", [1, 25_000])
async def test_merging_a_batch_never_scans_the_table(connection: Any, rows: int, preparation: str, batch: int) -> None:
    await connection.execute(FILL, rows)
    await connection.execute(preparation)
    async with connection.transaction():
        await connection.execute(CHANGE, batch)
        plan = await planned(connection, statements.merge("endpoint_state", "saved_endpoint"), "1")
    assert plan[0]["Conflict Arbiter Indexes"] == ["endpoint_state_pkey"], plan
    assert not [node for node in plan[1:] if node.get("Relation Name") == "endpoint_state"], plan


@pytest.mark.parametrize("source", ["endpoint_session", "endpoint_state_at(now())"])
async def test_the_past_of_one_endpoint_is_read_by_its_id(database_url: str, query: Query, source: str) -> None:
    await query(database_url, FILL, 5_000)
    await query(database_url, "SELECT endpoint_change_maintain('7 days')")
    await query(
        database_url,
        "INSERT INTO endpoint_change (shard, commit_no, committed_at, endpoint_id, facet, verdict, before) "
        "SELECT 0, number, now(), 'endpoint-' || number, 'connectivity', 'applied', '{}' "
        "FROM generate_series(1, 5000) AS number",
    )
    await query(database_url, "ANALYZE")
    ((plan,),) = await query(
        database_url, f"EXPLAIN (FORMAT JSON) SELECT * FROM {source} WHERE endpoint_id = 'endpoint-7'"
    )
    read = [
        node for node in nodes(json.loads(plan)[0]["Plan"]) if node.get("Relation Name", "").startswith("endpoint_")
    ]
    # Partitions of the days to come are empty.
    scanned = {node["Relation Name"] for node in read if node["Node Type"] == "Seq Scan" and node["Plan Rows"] > 1}
    assert read
    assert scanned == set()


LOG = """
INSERT INTO endpoint_change (shard, commit_no, committed_at, endpoint_id, facet, verdict, position, before, after)
SELECT 0, number, clock_timestamp(), 'endpoint-' || number / 10, 'connectivity', 'applied', number, '{}', '{}'
FROM generate_series(1, $1::integer) AS number
"""
PARKED = """
INSERT INTO dead_letter (stream, position, subject, payload, stored_at, reason, detail)
SELECT 'S', number, 's', 'p', now(), 'r', 'd' FROM generate_series(1, $1::integer) AS number
"""
AT = "'9999-12-31 00:00:00+00'"
ASKED = {
    "search": (endpoints.SEARCH.format(below=endpoints.BELOW), "'endpoint-12', 51, 'endpoint-13'"),
    "search to the end": (endpoints.SEARCH.format(below=""), "'', 51"),
    "state": (endpoints.STATE, "'endpoint-7'"),
    "sessions": (endpoints.SESSIONS, f"'endpoint-7', {AT}, 0, 51"),
    "changes": (endpoints.CHANGES, f"'endpoint-7', {AT}, 1, 1, 'metadata', 51"),
    "row to explain": (explanation.ROW, "'endpoint-7'"),
    "changes to explain": (explanation.LATEST, "'endpoint-7', now() - interval '7 days', NULL, 21"),
    "changes behind values": (explanation.SELECTED, "'endpoint-7', now() - interval '7 days', '{3}', ARRAY[now()]"),
    "sizes of dead letters": (endpoints.SIZES, "'S', 40000, 1001"),
    "dead letters": (endpoints.LETTERS, "'S', 40000, 39000, 'p', 51"),
}


@pytest.fixture
async def logged(connection: Any, scene: Scene) -> Any:
    """The connection, once changes are logged."""
    await scene.fold(changes="7d")
    return connection


@sizes
@analyzed
async def test_the_api_never_scans_a_table(logged: Any, rows: int, preparation: str) -> None:
    for fill in (FILL, LOG, PARKED):
        await logged.execute(fill, rows)
    if preparation.startswith("ANALYZE"):
        await logged.execute("ANALYZE")
    for mode in ("force_generic_plan", "force_custom_plan"):
        await logged.execute(f"SET plan_cache_mode = {mode}")
        for asked, (statement, arguments) in ASKED.items():
            plan = await planned(logged, statement, arguments)
            reading = [
                node for node in plan if node.get("Relation Name", "projector_checkpoint") != "projector_checkpoint"
            ]
            assert reading, asked
            for node in reading:
                assert "Index Name" in node or node["Node Type"] == "Bitmap Heap Scan", (asked, mode, node)
            assert [node for node in plan if node["Node Type"] == "Sort" and node["Plan Rows"] > 1_000] == [], asked
