"""Publishing changes on the command line: init, status, doctor, readiness and metrics."""

import asyncio
import json
import re
import signal
from itertools import pairwise
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, StreamConfig

from tests.support.command_line import CommandLine
from tests.support.fixtures import Event, Eventually, Publish, Query
from tests.support.monitored import fetch

NAME = "KAA_ENDPOINT_EVENTS_CHANGES"
ON = {"PROJECTOR_CHANGES": "36h", "PROJECTOR_PUBLISH": "fleet"}


@pytest.fixture
def publishing(projector: CommandLine) -> CommandLine:
    projector.environment |= ON
    return projector


async def named(command: CommandLine) -> dict[str, str]:
    """The findings of the doctor on the feed."""
    findings = json.loads((await command("doctor", "--json")).out)["findings"]
    return {one["name"]: one["what"] for one in findings if "change" in one["name"] or "publish" in one["name"]}


async def publish_status(command: CommandLine) -> Any:
    return json.loads(await command.succeeds("status", "--json"))["publish"]


async def test_init_creates_a_stream_for_the_changes(publishing: CommandLine, nats_client: Client) -> None:
    first = await publishing.succeeds("init")
    assert first.splitlines()[-1] == f"stream {NAME} stores the changes, fleet.>"
    config = (await nats_client.jetstream().stream_info(NAME)).config
    assert (config.subjects, config.storage, config.duplicate_window) == (["fleet.>"], "file", 600)
    assert config.max_age == 36 * 3600
    assert await publishing.succeeds("init") == first.replace("was created", "is there")
    assert await named(publishing) == {}


async def test_init_leaves_a_stream_that_stores_the_prefix_unchanged(
    publishing: CommandLine, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(StreamConfig(name="OURS", subjects=["fleet.*.*"], max_msgs_per_subject=1))
    assert "stream OURS stores the changes, fleet.>" in await publishing.succeeds("init")
    assert [info.config.name for info in await jetstream.streams_info()] == ["KAA_ENDPOINT_EVENTS", "OURS"]


async def test_init_creates_no_stream_for_changes_that_are_not_published(
    projector: CommandLine, nats_client: Client
) -> None:
    assert NAME not in await projector.succeeds("init", "--changes", "7d")
    assert len(await nats_client.jetstream().streams_info()) == 1


async def test_init_refuses_a_stream_that_stores_the_events_as_well(
    publishing: CommandLine, nats_client: Client
) -> None:
    await nats_client.jetstream().add_stream(StreamConfig(name="KAA_ENDPOINT_EVENTS", subjects=[">"], no_ack=True))
    ended = await publishing("init")
    assert ended.code == 3
    assert "stores both the changes (fleet.>) and the events" in ended.err
    assert (await named(publishing)).keys() == {"changes-stream-mixed"}


@pytest.mark.parametrize("subjects", [["elsewhere"], ["fleet.connectivity.*"]])
async def test_init_refuses_a_stream_that_is_in_the_way(
    publishing: CommandLine, nats_client: Client, subjects: list[str]
) -> None:
    name = NAME if subjects == ["elsewhere"] else "PART"
    await nats_client.jetstream().add_stream(StreamConfig(name=name, subjects=subjects))
    ended = await publishing("init")
    assert ended.code == 3
    assert f"stream '{NAME}' cannot be created for fleet.>" in ended.err


async def test_a_wrong_prefix_and_publishing_without_a_log_end_with_2(publishing: CommandLine) -> None:
    ended = await publishing("run", "--publish", "kaa.v1")
    assert (ended.code, "overlap kaa.v1.events.>" in ended.err) == (2, True)
    ended = await publishing("status", PROJECTOR_CHANGES="off")
    assert (ended.code, "set PROJECTOR_CHANGES" in ended.err) == (2, True)


async def test_status_says_how_far_changes_are_published(
    publishing: CommandLine, nats_client: Client, publish: Publish, event: Event
) -> None:
    await publishing.succeeds("init")
    assert (await publish_status(publishing))["cursor"] is None
    await publish(event("connectivity.connected", "e1"))
    await publishing.fold()
    found = await publish_status(publishing)
    assert {name: found[name] for name in found if name != "advanced_at"} == {
        "prefix": "fleet",
        "stream": NAME,
        "cursor": 1,
        "lag_commits": 0,
        "lag_seconds": 0,
        "error": None,
        "error_since": None,
        "lost_commits": 0,
    }
    assert re.search(rf"^publish +to fleet.> in {NAME}$", await publishing.succeeds("status"), re.MULTILINE)
    await nats_client.jetstream().delete_stream(NAME)
    await publish(event("connectivity.connected", "e2"))
    await publishing.fold()
    found = await publish_status(publishing)
    assert (found["cursor"], found["lag_commits"], found["lag_seconds"] > 0) == (1, 1, True)
    assert "no stream stores fleet.>" in found["error"]
    said = await publishing.succeeds("status")
    assert re.search(r"^publish +.*, 1 commits behind, .* waiting since .*: no stream stores", said, re.MULTILINE)
    assert await publish_status_off(publishing) is None


async def publish_status_off(command: CommandLine) -> Any:
    return json.loads(await command.succeeds("status", "--json", "--publish", "off"))["publish"]


async def test_doctor_finds_what_keeps_changes_from_being_published(
    publishing: CommandLine, nats_client: Client, publish: Publish, event: Event, query: Query
) -> None:
    jetstream = nats_client.jetstream()
    await publishing.succeeds("init")
    await jetstream.delete_stream(NAME)
    assert await named(publishing) == {"changes-stream-missing": "no stream stores fleet.>"}
    await publish(event("connectivity.connected", "e1"))
    await publishing.fold()
    assert (await named(publishing)).keys() == {"changes-stream-missing", "not-publishing"}
    bad = StreamConfig(
        name="OTHER",
        subjects=["fleet.>", "orders"],
        discard=DiscardPolicy.NEW,
        max_msgs=9,
        max_msg_size=5000,
        duplicate_window=30,
    )
    await jetstream.add_stream(bad)
    await publishing.fold()
    assert (await jetstream.stream_info("OTHER")).state.messages == 1
    assert (await named(publishing)).keys() == {
        "changes-stream-shared",
        "changes-fill-up",
        "changes-message-size",
        "changes-window",
    }
    assert (await jetstream.stream_info("OTHER")).state.last_seq == 1  # the doctor publishes nothing
    await query(publishing.environment["PROJECTOR_DATABASE_URL"], "UPDATE projector_feed SET lost_commits = 2")
    assert "changes of 2 commits" in (await named(publishing))["changes-lost"]


async def test_readiness_status_page_and_metrics_say_why_nothing_is_published(
    publishing: CommandLine, nats_client: Client, publish: Publish, event: Event, eventually: Eventually
) -> None:
    await publishing.succeeds("init")
    await nats_client.jetstream().delete_stream(NAME)
    daemon = await publishing.start("run", "--http", "127.0.0.1:0")
    await daemon.logs("listening")
    await daemon.logs("not publishing")
    (url,) = [entry["http"] for entry in daemon.logged if entry["event"] == "listening"]
    await publish(event("connectivity.connected", "e1"))

    async def says(path: str, *texts: str) -> None:
        async def said() -> bool:
            body = (await asyncio.to_thread(fetch, url + path)).body
            return all(text in body for text in texts)

        await eventually(said)

    await says("/metrics", "projector_publish_failing 1.0", "projector_publish_lag_commits 1.0")
    await says("/readyz", '"ready": true', '"publish_error": "no stream stores fleet.>')
    await says("/status", "Changes are not published: no stream stores fleet.>")
    await publishing.succeeds("init")
    await daemon.logs("publishing")
    await says("/metrics", "projector_publish_failing 0.0", "lag_commits 0.0", "projector_published_total 1.0")
    await says("/readyz", '"publish_error": null')
    daemon.send(signal.SIGTERM)
    assert (await daemon.end()).code == 0
    # A server that stalls is another reason; each is said once for as long as it lasts.
    said = [entry.get("reason") for entry in daemon.logged if entry["event"] in {"not publishing", "publishing"}]
    assert all(before != after for before, after in pairwise(said)), said
