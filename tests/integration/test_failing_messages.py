"""Messages that Postgres rejects, and tables that were changed by hand."""

import json
from typing import Any

import pytest

from projector.errors import DamagedRowError, DatabaseRefusedError
from projector.stream import subjects
from tests.support.fixtures import Event
from tests.support.scene import Scene

MALFORMED = subjects.build("kpc", "connectivity.connected")


OBJECT = "CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$"
TRIGGER = """
CREATE TRIGGER object BEFORE INSERT OR UPDATE ON endpoint_state FOR EACH ROW
WHEN (new.endpoint_id = 'e50') EXECUTE FUNCTION object()
"""


@pytest.mark.parametrize(
    ("objection", "said"),
    [
        (["ALTER TABLE endpoint_state ADD CHECK (endpoint_id <> 'e50')"], "endpoint_state_endpoint_id_check"),
        ([OBJECT, TRIGGER], "not this one"),
        (["CREATE UNIQUE INDEX ON endpoint_state (app_version)"], "endpoint_state_app_version_idx"),
    ],
    ids=["check constraint", "trigger", "unique index"],
)
async def test_message_that_postgres_rejects_is_parked_alone(
    scene: Scene, event: Event, objection: list[str], said: str
) -> None:
    for statement in objection:
        await scene.query(statement)
    messages = [event("lifecycle.registered", f"e{n}", appVersionName=f"v{n}") for n in range(1, 101)]
    messages[49] = event("lifecycle.registered", "e50", appVersionName="v7")
    messages[9] = ("kaa.v1.events.kpc.endpoint.config.unheard", b"")
    messages[89] = (messages[89][0], b"\xff")
    await scene.publish(*messages, event("connectivity.connected", "e1", appVersionName="w"))
    await scene.fold()

    assert await scene.query("SELECT position, reason, attempts FROM dead_letter ORDER BY position") == [
        (50, "database-rejected", 1),
        (90, "malformed-payload", 1),
    ]
    ((detail,),) = await scene.query("SELECT detail FROM dead_letter WHERE position = 50")
    assert said in detail
    assert {row[0] for row in await scene.table()} == {f"e{n}" for n in range(1, 101)} - {"e10", "e50", "e90"}
    assert await scene.query("SELECT app_version FROM endpoint_state WHERE endpoint_id = 'e1'") == [("w",)]
    assert await scene.query("SELECT position, skipped FROM projector_checkpoint") == [(101, '{"config.unheard": 1}')]


async def test_an_event_about_several_endpoints_changes_all_of_them_or_none(scene: Scene, event: Event) -> None:
    await scene.query("ALTER TABLE endpoint_state ADD CHECK (endpoint_id <> 'e2')")
    await scene.publish(
        event("connectivity.disconnected", endpointIds=["e1", "e2", "e3"]),
        event("connectivity.disconnected", endpointIds=["e3", "e4"]),
    )
    await scene.fold()
    assert await scene.dead_letters() == [(1, "database-rejected")]
    assert await scene.query("SELECT endpoint_id, last_event_seq FROM endpoint_state ORDER BY 1") == [
        ("e3", 2),
        ("e4", 2),
    ]


async def test_events_after_a_rejected_message_build_on_committed_state(scene: Scene, event: Event) -> None:
    """A batch folded ahead of a commit must not build on the part of it that was rejected."""
    await scene.query("ALTER TABLE endpoint_state ADD CHECK (app_version <> 'refused')")
    await scene.publish(
        event("lifecycle.registered", "e", appVersionName="v1", timestamp=1000),
        event("lifecycle.appversion-updated", "e", appVersionName="refused", timestamp=9000),
        event("config.new-available", "e", configId="c", timestamp=3000),
        event("lifecycle.appversion-updated", "e", appVersionName="v2", timestamp=4000),
        event("metadata.updated", "e", added=["k"], timestamp=5000),
    )
    await scene.fold(batch_size=1)
    assert await scene.dead_letters() == [(2, "database-rejected")]
    assert await scene.query(
        "SELECT app_version, config_pending_id, metadata::text, last_event_seq FROM endpoint_state"
    ) == [("v2", "c", '{"k": null}', 5)]


async def test_daemon_stops_when_a_dead_letter_cannot_be_written(scene: Scene, event: Event) -> None:
    await scene.query("ALTER TABLE dead_letter ADD CHECK (position < 2)")
    await scene.publish(event("connectivity.connected", "before", appVersionName=""), (MALFORMED, b"\xff"))
    with pytest.raises(DatabaseRefusedError, match="rejects a dead letter"):
        await scene.fold()
    assert (await scene.position(), await scene.dead_letters()) == (1, [])


@pytest.mark.parametrize(
    "stamp",
    [
        [1, 10**17, "kpc", "kpc-0"],
        [1, -(10**15), "kpc", "kpc-0"],
        [1, 1, "nul\0", None],
    ],
    ids=["a time beyond 64 bits of microseconds", "a time before the calendar", "a text that no column can hold"],
)
async def test_row_that_cannot_be_rewritten_is_named_and_no_message_is_parked(
    scene: Scene, event: Event, stamp: list[Any]
) -> None:
    await scene.publish(*(event("connectivity.connected", name, appVersionName="") for name in ("damaged", "other")))
    await scene.fold()
    await scene.query(
        "UPDATE endpoint_state SET connectivity_registers = $1 WHERE endpoint_id = 'damaged'", json.dumps([stamp, None])
    )
    await scene.publish(
        event("connectivity.disconnected", endpointIds=["other"]),
        event("connectivity.disconnected", endpointIds=["other", "damaged"], originatorReplicaId="kpc-0"),
    )
    with pytest.raises(DamagedRowError, match="the connectivity registers of endpoint 'damaged' are damaged"):
        await scene.fold()
    assert await scene.dead_letters() == []
    assert await scene.position() == 3
