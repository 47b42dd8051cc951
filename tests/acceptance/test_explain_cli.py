"""`projector explain`, as a process."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client

from tests.support.command_line import CommandLine
from tests.support.fixtures import Event, Eventually, Publish, Query

T = 1_700_000_000_000
ODD = "-odd \x1b[31m\u202e ключ"


@pytest.fixture
async def folded(prepared: CommandLine, event: Event, publish: Publish) -> CommandLine:
    """A connect, and a disconnect from another replica."""
    prepared.environment["PROJECTOR_CHANGES"] = "7d"
    await publish(
        event("connectivity.connected", "e1", appVersionName="v1", originatorReplicaId="kpc-1"),
        event("connectivity.disconnected", endpointIds=["e1"], originatorReplicaId="kpc-2", timestamp=T + 1000),
        event("metadata.updated", "e1", added=["site"], originatorReplicaId="epr-1", timestamp=T + 2000),
        event("connectivity.connected", ODD, originatorReplicaId="kpc-1"),
    )
    await prepared.fold()
    return prepared


FENCED = "the session is held by kpc/kpc-1 since 2023-11-14T22:13:20+00:00 (position 1)"


@pytest.mark.parametrize("source", [(), ("--replay",)])
async def test_json_has_every_column_with_its_event_and_each_event_with_its_reason(
    folded: CommandLine, source: tuple[str, ...]
) -> None:
    ended = await folded("explain", "e1", "--json", *source)
    assert ended.code == 0
    answer = json.loads(ended.out)
    assert set(answer) == {"endpoint_id", "columns", "events"}
    assert answer["endpoint_id"] == "e1"
    connect = {
        "event": "connectivity.connected",
        "position": 1,
        "occurred_at": "2023-11-14T22:13:20.000+00:00",
        "originator": "kpc",
        "replica": "kpc-1",
    }
    assert answer["columns"]["connectivity_status"] == {"value": "connected", **connect}
    assert answer["columns"]["connected_at"] == {"value": "2023-11-14T22:13:20.000+00:00", **connect}
    assert answer["columns"]["disconnected_at"] == {"value": None, **dict.fromkeys(connect)}
    assert answer["columns"]["metadata"]["value"] == {"site": None}
    assert [(one["position"], one["facet"], one["verdict"]) for one in answer["events"]] == [
        (3, "metadata", "applied"),
        (2, "connectivity", "fenced"),
        (1, "connectivity", "applied"),
        (1, "application", "applied"),
    ]
    assert answer["events"][1] == {
        "position": 2,
        "occurred_at": "2023-11-14T22:13:21.000+00:00",
        "event": "connectivity.disconnected",
        "facet": "connectivity",
        "verdict": "fenced",
        "originator": "kpc",
        "replica": "kpc-2",
        "reason": f"fenced: {FENCED}",
        "before": None,
        "after": None,
    }
    assert answer["events"][0]["after"] == {
        "metadata": {"site": None},
        "metadata_changed_at": "2023-11-14T22:13:22+00:00",
    }


async def test_text_has_columns_keys_and_events(folded: CommandLine) -> None:
    printed = await folded.succeeds("explain", "e1")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    at = "2023-11-14 22:13:20.000+00:00"
    connect = [at, "1", "connectivity.connected", "kpc/kpc-1"]
    assert ["connectivity_status", "connected", *connect] in rows
    assert ["disconnected_at", "", "", "", "", ""] in rows
    assert ["site", "", "2023-11-14 22:13:22.000+00:00", "3", "metadata.updated", "kpc/epr-1"] in rows
    assert [*connect, "application", "applied", "app_version = v1"] in rows
    assert [row[-1] for row in rows if "fenced" in row] == [FENCED]
    assert printed.splitlines()[-1].startswith("Changes have been recorded since 20")


async def test_without_a_log_and_without_nats_the_registers_answer(
    folded: CommandLine, query: Query, database_url: str
) -> None:
    await query(database_url, "UPDATE projector_checkpoint SET changes_since = NULL")
    ended = await folded("explain", "e1", "--json", PROJECTOR_NATS_URL="nats://127.0.0.1:1")
    assert ended.code == 0
    answer = json.loads(ended.out)
    assert answer["events"] == []
    assert answer["columns"]["app_version"]["event"] == "connectivity.connected"
    assert "Changes are not recorded" in ended.err
    assert "PROJECTOR_CHANGES" in ended.err


async def test_a_moment_is_in_iso_8601_or_before_now(
    folded: CommandLine, event: Event, publish: Publish, eventually: Eventually
) -> None:
    moment = datetime.now(UTC)

    async def over() -> bool:
        return datetime.now(UTC) > moment + timedelta(milliseconds=2)

    await eventually(over)
    await publish(event("connectivity.connected", "e1", originatorReplicaId="kpc-3", timestamp=T + 9000))
    await folded.fold()
    then = json.loads(await folded.succeeds("explain", "e1", "--json", "--at", moment.isoformat()))
    now = json.loads(await folded.succeeds("explain", "e1", "--json", "--at", "-0s"))
    replayed = json.loads(await folded.succeeds("explain", "e1", "--json", "--replay", "--at", moment.isoformat()))
    assert [one["columns"]["connected_replica"]["value"] for one in (then, replayed, now)] == [
        "kpc-1",
        "kpc-1",
        "kpc-3",
    ]
    before = await folded("explain", "e1", "--at", "-2h")
    assert (before.code, before.out) == (3, "")
    assert "the log of changes begins at" in before.err
    assert "--replay" in before.err


@pytest.mark.parametrize("at", ["yesterday", "-2", "-999999999d", "2999-01-01", ""])
async def test_a_wrong_moment_is_a_usage_error(folded: CommandLine, at: str) -> None:
    ended = await folded("explain", "e1", "--at", at)
    assert (ended.code, ended.out) == (2, "")
    assert "--at" in ended.err


async def test_any_id_is_taken_and_printed_without_its_control_characters(folded: CommandLine) -> None:
    ended = await folded("explain", "--", ODD)
    assert ended.code == 0
    assert ended.out.startswith("endpoint -odd \\x1b[31m\\u202e ключ\n")
    assert json.loads(await folded.succeeds("explain", "--json", "--", ODD))["endpoint_id"] == ODD
    for unknown in ("nobody\x1b[31m", "x" * 1024):
        ended = await folded("explain", unknown)
        assert (ended.code, ended.out) == (3, "")
        assert f"there is no endpoint '{unknown}'".encode("unicode_escape").decode() in ended.err


async def test_replay_says_that_the_beginning_of_the_stream_is_gone(folded: CommandLine, nats_client: Client) -> None:
    await nats_client.jetstream().purge_stream("KAA_ENDPOINT_EVENTS", seq=3)
    ended = await folded("explain", "e1", "--replay")
    assert ended.code == 0
    assert "The stream begins at position 3, and 2 of its messages are gone" in ended.out
