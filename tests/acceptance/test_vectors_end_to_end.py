"""The vectors of an independent encoder and an independent model, from the wire to the table."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.fixtures import Event, Publish, Query

VECTORS = Path(__file__).parents[1] / "vectors"
EPOCH = datetime.fromtimestamp(0, UTC)

# The broker stores the messages now: columns that depend on the stored time differ from the vectors.
DEPENDS_ON_STORED_TIME = {
    "no-clock": {"connected_at", "connectivity_changed_at", "app_version_changed_at", "last_event_at"},
    "fast-clock": {
        "connected_at",
        "connectivity_changed_at",
        "connected_replica",
        "app_version",
        "app_version_changed_at",
    },
}


def plain(value: Any) -> Any:
    return (value - EPOCH) // timedelta(milliseconds=1) if isinstance(value, datetime) else value


async def rows(query: Query, url: str, columns: list[str]) -> dict[str, dict[str, Any]]:
    found = await query(url, f"SELECT {', '.join(columns)} FROM endpoint_state")
    named = [dict(zip(columns, map(plain, row), strict=True)) for row in found]
    return {row["endpoint_id"]: row | {"metadata": json.loads(row["metadata"])} for row in named}


@pytest.mark.parametrize("name", ["rules", "random", "today-rules", "today-random"])
async def test_table_matches_an_independent_model(
    projector: CommandLine, publish: Publish, query: Query, empty_database_url: str, name: str
) -> None:
    projector.environment["PROJECTOR_REVISION"] = "kaa-2020-05" if name.startswith("today") else "kaa-2017-04"
    await projector.succeeds("init")
    with (VECTORS / f"{name}.jsonl").open(encoding="utf-8") as file:  # `splitlines` also breaks at U+0085
        lines = [json.loads(line) for line in file]
    last = await publish(*((line["subject"], bytes.fromhex(line["payload_hex"])) for line in lines))
    # Positions can be compared because both begin at 1 and have no holes.
    assert last == len(lines) == lines[-1]["position"]

    await projector.succeeds("run", "--until-caught-up")

    expected = {row["endpoint_id"]: row for row in json.loads((VECTORS / f"{name}.expected.json").read_text("utf-8"))}
    found = await rows(query, empty_database_url, list(next(iter(expected.values()))))
    for endpoint_id, columns in DEPENDS_ON_STORED_TIME.items():
        for table in (expected, found):
            if endpoint_id in table:
                table[endpoint_id] = {key: value for key, value in table[endpoint_id].items() if key not in columns}
    assert found == expected
    assert await query(empty_database_url, "SELECT count(*) FROM dead_letter") == [(0,)]


async def test_event_without_a_usable_time_takes_its_stored_time(
    prepared: CommandLine, event: Event, publish: Publish, query: Query, database_url: str
) -> None:
    ahead = datetime.now(UTC) + timedelta(days=400)
    times = {"none": 0, "negative": -1, "ahead": (ahead - EPOCH) // timedelta(milliseconds=1)}
    before = datetime.now(UTC) - timedelta(seconds=1)
    await publish(*(event("connectivity.connected", name, timestamp=time) for name, time in times.items()))
    await prepared.succeeds("run", "--until-caught-up")
    found: dict[str, datetime] = dict(await query(database_url, "SELECT endpoint_id, connected_at FROM endpoint_state"))
    assert found.keys() == times.keys()
    assert all(before < time < datetime.now(UTC) + timedelta(seconds=1) for time in found.values())
