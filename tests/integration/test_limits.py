"""Events of extreme size or content are folded, or parked with the reason, in bounded memory."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client

from projector.runtime import Projector
from projector.storage import store as store_module
from projector.stream.limits import MAX_ENDPOINT_ID_BYTES
from tests.support.fixtures import Event, Publish
from tests.support.patience import PATIENCE_S
from tests.support.scene import Scene

CONNECTED, DISCONNECTED = "connectivity.connected", "connectivity.disconnected"
METADATA = "metadata.updated"
MINUTES_S = 5 * PATIENCE_S
"""For the largest amounts of work here."""

ODD_IDS = [
    "".join(chr(plane << 16 | 0x4E00) for plane in (0, 1, 2, 3)),
    "".join(chr(plane << 16 | 0xFFFD) for plane in range(17)),
    "\U0010ffff\U000f0000\U000e0001",
    "'; DROP TABLE endpoint_state; --",
    '"quoted" \\backslashed\\ $1 %s {}',
    "tab\tnewline\nreturn\r\x01\x1f\x7f\x85\u2028\ufeff",
    "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈",
    "\u202emirrored\u202c العربية עברית",
    "e\u0301",
    "\u00e9",
    " ",
    "NULL",
    "\\x00",
    "\\N",
    "x" * MAX_ENDPOINT_ID_BYTES,
    "\U0001f680" * (MAX_ENDPOINT_ID_BYTES // 4),
]


async def test_an_event_that_names_a_hundred_thousand_endpoints_is_folded_in_one_transaction(
    scene: Scene, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At about ten bytes each they fill the largest message that a server accepts by default."""
    monkeypatch.setattr(store_module, "_COMMAND_TIMEOUT_S", MINUTES_S)
    for settings in (store_module.WRITER_SETTINGS, store_module.LEADER_SETTINGS):
        for limit in ("idle_in_transaction_session_timeout", "idle_session_timeout", "statement_timeout"):
            monkeypatch.setitem(settings, limit, "0")  # a busy machine takes long between and in the statements
    names = [f"e{number:05d}" for number in range(100_000)]
    await scene.publish(event(DISCONNECTED, endpointIds=names), event(CONNECTED, "e00000", timestamp=2**62))
    async with asyncio.timeout(MINUTES_S), Projector(scene.settings()) as projector:
        await projector.run(until_caught_up=True)
    assert await scene.dead_letters() == []
    assert await scene.query("SELECT connectivity_status, count(*) FROM endpoint_state GROUP BY 1 ORDER BY 2") == [
        ("connected", 1),
        ("disconnected", 99_999),
    ]
    # The second message may come in a batch of its own.
    counted = "SELECT count(DISTINCT xmin::text) FROM endpoint_state WHERE connectivity_status = 'disconnected'"
    assert await scene.query(counted) == [(1,)]


@pytest.mark.parametrize("last", ["", "e", "e\0"], ids=["sound", "repeated", "unstorable at its very end"])
async def test_largest_message_is_folded_or_parked(last: str, scene: Scene, event: Event, nats_client: Client) -> None:
    _, empty = event(DISCONNECTED, endpointIds=["e", "x"])
    room = nats_client.max_payload - len(empty)
    long = "x" * 1000
    names = [f"{number:03d}{long}" for number in range(room // 1005 - 2)]
    subject, payload = event(DISCONNECTED, endpointIds=["e", *names, last or "y"])
    assert nats_client.max_payload - 4096 < len(payload) <= nats_client.max_payload
    await scene.publish((subject, payload))
    await scene.fold()
    found = await scene.query("SELECT count(*) FROM endpoint_state")
    if last == "e\0":
        assert (found, await scene.dead_letters()) == ([(0,)], [(1, "unstorable-text")])
        assert await scene.query("SELECT payload FROM dead_letter") == [(payload,)]
    else:
        assert (found, await scene.dead_letters()) == ([(len(names) + (1 if last else 2),)], [])


async def test_any_textual_id_is_stored_unchanged(scene: Scene, event: Event) -> None:
    for name in ODD_IDS:
        await scene.publish(
            event(CONNECTED, name, appVersionName=name, originatorReplicaId=name),
            event(METADATA, name, added=[name, "k"]),
            event("config.new-available", name, configId=name),
        )
    recorder = await scene.fold()
    assert recorder.parked == []
    rows = await scene.query(
        "SELECT endpoint_id, app_version, connected_replica, config_pending_id, "
        "(SELECT array_agg(key) FROM jsonb_object_keys(metadata) AS key WHERE key <> 'k') FROM endpoint_state"
    )
    assert sorted(rows) == sorted((name, name, name, name, [name]) for name in ODD_IDS)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty-endpoint-id"),
        ("nul\0", "unstorable-text"),
        ("x" * (MAX_ENDPOINT_ID_BYTES + 1), "endpoint-id-too-long"),
        ("ü" * 1347, "endpoint-id-too-long"),
        ("x" * 500_000, "endpoint-id-too-long"),
    ],
    ids=["empty", "NUL", "one byte too long", "too long in bytes only", "half a megabyte"],
)
async def test_unstorable_id_is_parked_with_the_reason(name: str, reason: str, scene: Scene, event: Event) -> None:
    await scene.publish(event(CONNECTED, name), event(CONNECTED, "next"))
    await scene.fold()
    assert await scene.dead_letters() == [(1, reason)]
    assert [row[0] for row in await scene.table()] == ["next"]


@pytest.mark.parametrize("timestamp", [-(2**63), -(2**53), -1, 0, 2**53, 2**62, 2**63 - 1])
async def test_extreme_timestamps_count_as_the_stored_time(timestamp: int, scene: Scene, event: Event) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    await scene.publish(event(CONNECTED, "e", timestamp=timestamp, timeout=-timestamp - 1))
    recorder = await scene.fold()
    assert recorder.parked == []
    ((at,),) = await scene.query("SELECT connected_at FROM endpoint_state")
    assert before < at < datetime.now(UTC) + timedelta(seconds=1)


async def test_the_earliest_time_that_an_event_can_have_is_the_first_millisecond(scene: Scene, event: Event) -> None:
    await scene.publish(event(CONNECTED, "e", timestamp=1))
    await scene.fold()
    ((at,),) = await scene.query("SELECT connected_at FROM endpoint_state")
    assert at == datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=1)


async def test_a_metadata_key_of_64_kilobytes_is_kept(scene: Scene, event: Event) -> None:
    key = "k" * 65_536
    await scene.publish(event(METADATA, "e", added=[key]), event(METADATA, "e", added=["k"], removed=[key]))
    await scene.fold()
    assert await scene.query("SELECT metadata::text FROM endpoint_state") == [('{"k": null}',)]
    await scene.publish(event(METADATA, "e", updated=[key]))
    await scene.fold()
    assert await scene.query("SELECT length(metadata::text) > 65536 FROM endpoint_state") == [(True,)]


async def test_thousands_of_metadata_keys_are_kept(scene: Scene, event: Event) -> None:
    keys = [f"key-{number:04d}" for number in range(5000)]
    await scene.publish(
        event(METADATA, "e", added=keys),
        event(METADATA, "e", removed=keys[:2500]),
        *(event(METADATA, "e", updated=[key]) for key in keys[:300]),
    )
    recorder = await scene.fold()
    assert recorder.parked == []
    ((count,),) = await scene.query("SELECT count(*) FROM endpoint_state, jsonb_object_keys(metadata)")
    assert count == 2800


LARGEST_RSS_MB = 400

WATCHED = """
import os, resource, sys
from projector.cli.main import main
try:
    main()
finally:
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


async def test_memory_is_bounded_for_any_backlog(scene: Scene, event: Event, publish: Publish) -> None:
    """The stream is larger than the daemon's memory limit, in messages of nearly a megabyte and in small ones."""
    large = event(METADATA, "e", added=["k" * 500_000, "l" * 500_000])
    many = event(DISCONNECTED, endpointIds=[f"e{number:05d}" for number in range(50_000)])
    small = [event(CONNECTED, f"c{number}") for number in range(20_000)]
    last = await publish(*[large] * 200, *[many] * 5, *small, (many[0], b"\xff" * 1_000_000))
    environment = {
        "PROJECTOR_NATS_URL": scene.nats_url,
        "PROJECTOR_DATABASE_URL": scene.database_url,
        "PROJECTOR_STREAM": scene.stream,
        "PROJECTOR_HTTP": "off",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WATCHED, "run", "--until-caught-up"),
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    output, _ = await asyncio.wait_for(process.communicate(), MINUTES_S)
    assert await scene.position() == last
    assert int(output) / 1024 < LARGEST_RSS_MB
