"""The hot path reaches rows by the primary key, whatever Postgres believes of the table when it plans."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from projector.domain.endpoint import FACETS
from projector.storage import statements
from projector.storage.store import Store

# A plan is kept while the table grows, so one that was made for a single row must not be a scan either.
sizes = pytest.mark.parametrize("rows", [1, 50_000])
analyzed = pytest.mark.parametrize(
    "preparation", ["ANALYZE endpoint_state", "SELECT 1"], ids=["analyzed", "never analyzed"]
)

FILL = """
INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at)
SELECT 'endpoint-' || number, number, now() FROM generate_series(1, $1::integer) AS number
"""
CHANGE = """
INSERT INTO endpoint_change (part, endpoint_id, last_event_seq, last_event_at)
SELECT 1, 'endpoint-' || number * 3, number, now() FROM generate_series(1, $1::integer) AS number
"""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Any]:
    """The writer's own connection."""
    store = Store(database_url)
    await store.open()
    yield store._connection
    await store.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def assert_by_primary_key(connection: Any, statement: str, arguments: str) -> None:
    """Look at the plan that the writer would make and keep."""
    await connection.execute(f"PREPARE hot AS {statement}")
    ((plan,),) = await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE hot({arguments})")
    await connection.execute("DEALLOCATE hot")
    found = list(nodes(json.loads(plan)[0]["Plan"]))
    scanned = {node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"}
    assert "endpoint_state" not in scanned, plan
    assert {node["Index Name"] for node in found if "Index Name" in node} == {"endpoint_state_pkey"}, plan


@sizes
@analyzed
@pytest.mark.parametrize("batch", [1, 8_000])
async def test_loading_a_batch_never_scans_the_table(connection: Any, rows: int, preparation: str, batch: int) -> None:
    await connection.execute(FILL, rows)
    await connection.execute(preparation)
    ids = f"'{{{','.join(f'endpoint-{number}' for number in range(batch))}}}'"
    facets = f"'{{{','.join(str(number % (1 << len(FACETS))) for number in range(batch))}}}'"
    await assert_by_primary_key(connection, statements.load("endpoint_state"), f"{ids}, {facets}")


@sizes
@analyzed
@pytest.mark.parametrize("batch", [1, 25_000])
async def test_merging_a_batch_never_scans_the_table(connection: Any, rows: int, preparation: str, batch: int) -> None:
    await connection.execute(FILL, rows)
    await connection.execute(preparation)
    async with connection.transaction():
        await connection.execute(CHANGE, batch)
        await assert_by_primary_key(connection, statements.merge("endpoint_state"), "1")
