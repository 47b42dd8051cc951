"""Limits and features of a NATS server: the daemon respects them, or names them."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from projector.dev.embedded import EmbeddedNats
from projector.errors import BrokerUnavailableError, ConsumerPausedError, NotPermittedError
from projector.runtime import Projector
from projector.settings import Settings
from projector.stream import inspection, subjects
from projector.stream.connection import Broker, connected
from projector.stream.consumers import DurableConsumer
from tests.support import servers
from tests.support.fixtures import Event, Eventually, Publish, Wire
from tests.support.monitored import fetch
from tests.support.patience import PATIENCE_S
from tests.support.scene import Scene
from tests.support.versions import FAULTS, needs_nats

STREAM = "KAA_ENDPOINT_EVENTS"
CONSUMER = "endpoint-state-projector"
CONNECTED = "connectivity.connected"
FILTERS = subjects.filters()

Serve: TypeAlias = Callable[..., EmbeddedNats]


@pytest.fixture
def jetstream(nats_client: Client) -> JetStreamContext:
    return nats_client.jetstream()


@pytest.fixture
def serve(server_folder: Path) -> Iterator[Serve]:
    """Starts NATS servers with the settings of a test, also in the JetStream block."""
    with ExitStack() as stack:

        def serve(jetstream: str, config: str = "") -> EmbeddedNats:
            block = f'jetstream {{store_dir: "{server_folder}/own", {jetstream}}}'
            return stack.enter_context(servers.nats_in(server_folder / "own", config=f"{block}\n{config}"))

        yield serve


async def ask(client: Client, what: str, request: dict[str, Any]) -> dict[str, Any]:
    """Create an object with fields that the client library does not know."""
    payload = json.dumps(request).encode()
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{what}", payload, timeout=PATIENCE_S)).data)
    assert "error" not in answer, answer
    return answer


async def edit(client: Client, **config: Any) -> None:
    """Change the configuration of the daemon's consumer in place."""
    now = (await ask(client, f"CONSUMER.INFO.{STREAM}.{CONSUMER}", {}))["config"]
    what = f"CONSUMER.DURABLE.CREATE.{STREAM}.{CONSUMER}"
    await ask(client, what, {"stream_name": STREAM, "config": now | config, "action": "update"})


@pytest.mark.parametrize("largest", [1, 7, 1000])
async def test_no_request_is_larger_than_the_server_allows(
    largest: int, serve: Serve, database_url: str, event: Event
) -> None:
    """The server sets the limit in each consumer, and answers a larger request with status 409."""
    server = serve(f"limits: {{max_request_batch: {largest}}}")
    async with await nats.connect(server.url) as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(name=STREAM, subjects=list(FILTERS))
        subject, payload = event(CONNECTED, "e")
        await asyncio.gather(*[await jetstream.publish_async(subject, payload) for _ in range(2500)])
    settings = Settings(nats_url=server.url, database_url=database_url, http="off", batch_size=1000)
    async with asyncio.timeout(PATIENCE_S), Projector(settings) as projector:
        await projector.run(until_caught_up=True)
        assert (await projector.status()).checkpoint_seq == 2500
        assert (await projector.verify()).clean


@pytest.mark.parametrize(
    "config",
    [
        {"max_batch": 2},
        {"max_expires": 10**9},
        {"max_bytes": 100},
        {"priority_groups": ["g"], "priority_policy": "overflow"},
        {"ack_wait": 10**9},
    ],
    ids=lambda config: next(iter(config)),
)
async def test_consumer_delivers_after_its_request_limits_change(
    config: dict[str, Any], scene: Scene, event: Event, nats_client: Client, eventually: Eventually
) -> None:
    await scene.publish(event(CONNECTED, "e"))
    daemon = scene.follow()
    await daemon.hears("caught up at 1")
    await edit(nats_client, **config)
    await scene.publish(*[event(CONNECTED, "e")] * 300)
    await eventually(lambda: scene.query("SELECT 1 FROM projector_checkpoint WHERE position = 301"))
    await daemon.stop()
    await scene.publish(*[event(CONNECTED, "e")] * 300)
    await scene.fold()
    assert await scene.position() == 601


async def test_stream_with_an_inactivity_limit_can_be_counted_and_replayed(
    scene: Scene, event: Event, nats_client: Client
) -> None:
    # Less than a replay asks for, and longer than a busy machine keeps it from pulling.
    limits = {"inactive_threshold": 20 * 10**9, "max_ack_pending": 10}
    config = {"name": STREAM, "subjects": list(FILTERS), "consumer_limits": limits}
    await ask(nats_client, f"STREAM.UPDATE.{STREAM}", config)
    await scene.publish(*[event(CONNECTED, "e")] * 300)
    await scene.fold()
    projector = Projector(scene.settings())
    assert (await projector.status()).lag_messages == 0
    assert (await projector.verify()).clean
    assert await findings(scene) == set()


async def findings(scene: Scene, **settings: Any) -> set[str]:
    found = (await Projector(scene.settings(**settings)).doctor()).findings
    return {finding.name for finding in found} - {"fsync-off", "full-page-writes-off"} - FAULTS


@needs_nats(2, 10)  # before, the limit cannot be changed
async def test_consumer_limit_is_named_with_its_remedy(
    scene: Scene, event: Event, jetstream: JetStreamContext, nats_client: Client
) -> None:
    await jetstream.delete_stream(STREAM)
    await jetstream.add_stream(name=STREAM, subjects=list(FILTERS), max_consumers=1)
    await scene.publish(event(CONNECTED, "e"))
    await jetstream.add_consumer(STREAM, durable_name="other")
    assert await findings(scene) == {"consumer-limit"}
    daemon = scene.follow()
    await daemon.hears("retrying")
    assert "maximum consumers limit reached (error 10026); raise max_consumers" in str(daemon.recorder.errors[0])
    await jetstream.delete_consumer(STREAM, "other")
    await daemon.hears("caught up at 1")
    await daemon.stop()
    assert await findings(scene) == {"consumer-limit-to-replay"}
    await scene.publish(event(CONNECTED, "e"))
    with pytest.raises(BrokerUnavailableError, match="raise max_consumers"):
        await Projector(scene.settings()).status()
    await ask(nats_client, f"STREAM.UPDATE.{STREAM}", {"name": STREAM, "subjects": list(FILTERS), "max_consumers": 2})
    await Projector(scene.settings()).status()
    assert await findings(scene) == set()


@needs_nats(2, 11)
@pytest.mark.parametrize("when", ["before the daemon starts", "while it is idle", "while it folds"])
async def test_daemon_waits_for_a_paused_consumer_and_names_it(
    when: str, scene: Scene, event: Event, nats_client: Client, eventually: Eventually
) -> None:
    """Deleting the consumer would end the pause that an operator chose."""
    await scene.publish(event(CONNECTED, "e"))
    daemon = scene.follow(http="127.0.0.1:0")
    await daemon.hears("caught up at 1")
    if when == "before the daemon starts":
        await daemon.stop()
    if when == "while it folds":
        await scene.publish(*[event(CONNECTED, "e")] * 5000)
    pause = {"pause_until": "2200-01-01T00:00:00Z"}
    await ask(nats_client, f"CONSUMER.PAUSE.{STREAM}.{CONSUMER}", pause)
    last = await scene.publish(event(CONNECTED, "e"))
    if when == "before the daemon starts":
        daemon = scene.follow(http="127.0.0.1:0")
    if when != "while it folds":
        await daemon.hears("retrying", 2)
        error = daemon.recorder.errors[0]
        assert isinstance(error, ConsumerPausedError)
        resume = f"nats consumer resume {STREAM} {CONSUMER}"
        assert "paused until 2200-01-01T00:00:00Z" in str(error)
        assert resume in str(error)
        await daemon.hears("listening")

        async def is_named() -> bool:
            answer = await asyncio.to_thread(fetch, f"{daemon.recorder.url}/readyz")
            return answer.code == 503 and "is paused until" in answer.body

        await eventually(is_named)
        assert "consumer-paused" in await findings(scene)
        assert await scene.position() == 1
    await ask(nats_client, f"CONSUMER.PAUSE.{STREAM}.{CONSUMER}", {"pause_until": "1970-01-01T00:00:00Z"})
    await eventually(lambda: scene.query("SELECT 1 FROM projector_checkpoint WHERE position = $1", last))
    await daemon.stop()
    assert {type(error) for error in daemon.recorder.errors} <= {ConsumerPausedError}


@needs_nats(2, 12)
async def test_server_markers_are_skipped_and_not_parked(
    scene: Scene, event: Event, nats_client: Client, publish: Publish, eventually: Eventually
) -> None:
    """When the last message of a subject expires, the server stores a marker in its place."""
    await scene.publish(event(CONNECTED, "e", originator="kpc"))
    daemon = scene.follow()
    await daemon.hears("caught up at 1")
    hour = 3600 * 10**9
    config = {"name": STREAM, "subjects": list(FILTERS), "subject_delete_marker_ttl": hour}
    config |= {"allow_msg_ttl": True, "allow_rollup_hdrs": True}
    await ask(nats_client, f"STREAM.UPDATE.{STREAM}", config | {"max_age": 10**9})

    def folded(position: int) -> Callable[[], Awaitable[bool]]:
        async def is_folded() -> bool:
            return await scene.position() >= position

        return is_folded

    await eventually(folded(2))
    await ask(nats_client, f"STREAM.UPDATE.{STREAM}", config | {"max_age": hour})
    await publish((subjects.build("kpc", CONNECTED), b""), headers={"Nats-Rollup": "sub"})
    last = await publish(event(CONNECTED, "other"), headers={"Nats-Rollup": "sub"})
    await eventually(folded(last))
    await daemon.stop()
    assert await scene.dead_letters() == []
    assert [row[0] for row in await scene.table()] == ["e", "other"]
    skipped = (await Projector(scene.settings()).status()).skipped
    assert skipped["(delete marker)"] >= 1
    assert skipped["(rollup marker)"] == 1


LONG = (inspection.LONG_ACKNOWLEDGEMENT,)


@needs_nats(2, 14)
@pytest.mark.parametrize("domain", ["", "domain: hub"])
async def test_acknowledgements_that_name_domain_and_account_need_the_documented_permission(
    domain: str, serve: Serve, scene: Scene, event: Event, eventually: Eventually
) -> None:
    short = (*inspection.DAEMON_NEEDS, *inspection.REPLAY_NEEDS)
    users = ["{user: admin, password: p}", user("documented", (*short, *LONG)), user("short", short)]
    account = f"accounts: {{fleet: {{jetstream: enabled, users: [{', '.join(users)}]}}}}"
    server = serve(domain, f"feature_flags {{js_ack_fc_v2: true}}\n{account}")

    def url(name: str) -> str:
        return server.url.replace("//", f"//{name}:p@")

    async with await nats.connect(url("admin")) as admin:
        jetstream = admin.jetstream()
        await jetstream.add_stream(name=STREAM, subjects=list(FILTERS))

        async def publish(*messages: Wire, headers: dict[str, str] | None = None) -> int:
            return max(
                [(await jetstream.publish(subject, payload, headers=headers)).seq for subject, payload in messages]
            )

        scene = replace(scene, nats_url=url("documented"), publish=publish)
        await scene.publish(event(CONNECTED, "e"))
        await scene.fold()

        async def is_acknowledged() -> bool:
            floor = (await jetstream.consumer_info(STREAM, CONSUMER)).ack_floor
            return floor is not None and floor.stream_seq == 1

        await eventually(is_acknowledged)
        assert await findings(scene) == set()
        assert await findings(scene, nats_url=url("short")) == {"nats-permissions-to-acknowledge"}
        daemon = scene.follow(nats_url=url("short"))
        await scene.publish(event(CONNECTED, "e"))
        with pytest.raises(NotPermittedError, match=r"publish to '\$JS\.ACK\."):
            await daemon.end()


def user(name: str, needs: Any) -> str:
    allowed = ", ".join(f'"{need.format(stream=STREAM, consumer=CONSUMER)}"' for need in needs)
    return f'{{user: {name}, password: p, permissions: {{publish: [{allowed}], subscribe: ["_INBOX.>"]}}}}'


async def test_a_server_that_allows_one_message_for_each_request_is_sent_many_requests(
    serve: Serve, eventually: Eventually
) -> None:
    server = serve("limits: {max_request_batch: 1}")
    async with (
        await nats.connect(server.url) as admin,
        connected(Broker(urls=(server.url,)), name="test") as client,
    ):
        await admin.jetstream().add_stream(name=STREAM, subjects=list(FILTERS))
        consumer = DurableConsumer(client, STREAM, CONSUMER, FILTERS, batch_size=50)
        await consumer.seek(0)

        async def fifty_wait() -> bool:
            info = await admin.jetstream().consumer_info(STREAM, CONSUMER)
            return bool(info.num_waiting == 50)

        await eventually(fifty_wait)
