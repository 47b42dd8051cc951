"""Endpoints are counted in slices, each of which reads only its own pages."""

from collections.abc import AsyncIterator

import pytest

from projector.monitoring import counting as counting_module
from projector.monitoring.counting import Counting
from projector.queries import probe as probe_module
from projector.queries.probe import COUNT, Probe
from tests.support.fixtures import Query
from tests.support.patience import PATIENCE_S

FILL = """
INSERT INTO endpoint_state (endpoint_id, connectivity_status, app_version, config_status, last_event_seq, last_event_at)
SELECT 'e' || n, CASE WHEN n % 3 = 0 THEN 'connected' ELSE 'disconnected' END,
       CASE WHEN n % 10 > 0 THEN 'v' || n % 30 END, CASE WHEN n % 2 = 0 THEN 'applied' ELSE 'none' END, n, now()
FROM generate_series(1, $1::int) AS n
"""
ENDPOINTS = 30_000


@pytest.fixture
async def probe(database_url: str) -> AsyncIterator[Probe]:
    probe = Probe(database_url, "S", purpose="test")
    await probe.open()
    yield probe
    await probe.close()


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting_module, "_REST_S", 0)
    patience = f"{PATIENCE_S:.0f}s"  # a busy machine must not cancel a query
    monkeypatch.setattr(probe_module, "_COUNT_TIMEOUT", f"SET LOCAL statement_timeout = '{patience}'")
    monkeypatch.setattr(probe_module, "_SETTINGS", {**probe_module._SETTINGS, "statement_timeout": patience})
    monkeypatch.setattr(probe_module, "_COMMAND_TIMEOUT_S", PATIENCE_S)


async def steps(counting: Counting) -> int:
    """Count until a round is complete; return how many slices that took."""
    before, taken = counting.latest, 0
    while counting.latest is before:
        counting._rest_until = 0
        await counting.step()
        taken += 1
    return taken


async def test_a_large_table_is_counted_in_several_slices_each_endpoint_once(
    database_url: str, query: Query, probe: Probe
) -> None:
    await query(database_url, FILL, ENDPOINTS)
    counting = Counting(probe)
    assert await steps(counting) > 1
    counts = counting.latest
    assert counts is not None
    assert counts.endpoints == ENDPOINTS
    assert counts.by_status == {"disconnected": 20_000, "connected": 10_000}
    assert counts.by_config_status == {"none": 15_000, "applied": 15_000}
    # 27 versions and no version; only the most frequent ones are named.
    assert counts.by_version["(unknown)"] == 3000
    assert len(counts.by_version) == 21
    assert counts.by_version["(other)"] == 8 * 1000
    assert sum(counts.by_version.values()) == ENDPOINTS


async def test_long_version_is_truncated(database_url: str, query: Query, probe: Probe) -> None:
    await query(database_url, FILL, 1)
    await query(database_url, "UPDATE endpoint_state SET app_version = repeat('v', 1000000)")
    counting = Counting(probe)
    await steps(counting)
    assert counting.latest is not None
    assert counting.latest.by_version == {"v" * 100: 1}


async def test_small_table_is_counted_in_one_slice_every_round(database_url: str, query: Query, probe: Probe) -> None:
    counting = Counting(probe)
    assert [await steps(counting) for _ in range(60)] == [1] * 60
    assert counting.latest is not None
    assert (counting.latest.endpoints, counting.latest.by_version) == (0, {})
    await query(database_url, FILL, 10)
    assert await steps(counting) == 1
    assert counting.latest.endpoints == 10


async def test_a_slice_that_takes_too_long_is_followed_by_a_smaller_one(
    database_url: str, query: Query, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    await query(database_url, FILL, ENDPOINTS)
    monkeypatch.setattr(counting_module, "_TARGET_S", 0.0001)
    counting = Counting(probe)
    await counting.step()
    assert counting._slice_pages < counting_module._FIRST_PAGES / 2


async def test_slow_slice_is_cancelled_and_counted_in_smaller_ones(
    database_url: str, query: Query, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    await query(database_url, FILL, ENDPOINTS)
    pages = await probe.pages()
    monkeypatch.setattr(probe_module, "_COUNT_TIMEOUT", "SET LOCAL statement_timeout = '1ms'")
    monkeypatch.setattr(counting_module, "_FIRST_PAGES", pages)
    assert await probe.count(0, pages) is None
    counting = Counting(probe)
    await steps(counting)
    assert counting.latest is not None
    assert counting.latest.endpoints == ENDPOINTS


PARTITION = """
ALTER TABLE endpoint_state RENAME TO whole;
ALTER TABLE whole RENAME CONSTRAINT endpoint_state_pkey TO whole_pkey;
CREATE TABLE endpoint_state (LIKE whole INCLUDING ALL) PARTITION BY HASH (endpoint_id);
CREATE TABLE endpoint_state_0 PARTITION OF endpoint_state FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE endpoint_state_1 PARTITION OF endpoint_state FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE endpoint_state_2 PARTITION OF endpoint_state FOR VALUES WITH (MODULUS 3, REMAINDER 2);
ALTER TABLE endpoint_state ADD COLUMN owner text;
"""


async def test_partitioned_table_with_extra_columns_is_counted_completely(
    database_url: str, query: Query, probe: Probe
) -> None:
    for statement in filter(str.strip, PARTITION.split(";")):
        await query(database_url, statement)
    await query(database_url, FILL, ENDPOINTS)
    counting = Counting(probe)
    await steps(counting)
    assert counting.latest is not None
    assert counting.latest.endpoints == ENDPOINTS


async def test_no_query_runs_between_rounds(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting_module, "_REST_S", 1000)
    counting = Counting(probe)
    await counting.step()
    await probe.close()
    await counting.step()


async def test_a_slice_reads_its_own_pages_only(database_url: str, query: Query) -> None:
    await query(database_url, FILL, ENDPOINTS)
    prepared = COUNT.replace("$1", "'(100,0)'").replace("$2", "'(150,0)'")
    plan = "\n".join(row[0] for row in await query(database_url, f"EXPLAIN (ANALYZE, BUFFERS) {prepared}"))
    assert "Tid Range Scan on endpoint_state" in plan
    read = sum(int(word.partition("=")[2]) for word in plan.split() if word.startswith(("hit=", "read=")))
    assert read < 1000, plan
