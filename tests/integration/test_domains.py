"""JetStream in another domain, behind a leaf node, or in another account: all requests follow the settings."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from projector.dev.simulation import Simulation, simulate
from projector.errors import BrokerRefusedError, BrokerUnavailableError, SettingError, StreamMissingError
from projector.runtime import Projector
from projector.settings import Settings
from projector.stream import inspection, subjects
from tests.support import servers
from tests.support.fixtures import Eventually
from tests.support.patience import PATIENCE_S
from tests.support.ports import free_ports
from tests.support.scene import Scene
from tests.support.versions import FAULTS

STREAM = "KAA_ENDPOINT_EVENTS"
CONSUMER = "endpoint-state-projector"
HUB, LEAF = "$JS.hub.API", "$JS.leaf.API"


class Topology(NamedTuple):
    """A hub and a leaf node, each with JetStream in a domain of its own, and users of their accounts."""

    hub: str
    leaf: str


def user(name: str, prefix: str) -> str:
    """A user who may do exactly what is documented, at another prefix of the API."""
    needs = (*inspection.DAEMON_NEEDS, *inspection.REPLAY_NEEDS, inspection.LONG_ACKNOWLEDGEMENT)
    named = [need.format(stream=STREAM, consumer=CONSUMER).replace("$JS.API", prefix) for need in needs]
    allowed = ", ".join(f'"{subject}"' for subject in named)
    return f'{{user: {name}, password: p, permissions: {{publish: [{allowed}], subscribe: ["_INBOX.>"]}}}}'


@pytest.fixture
def topology(server_folder: Path) -> Iterator[Topology]:
    def config(name: str, more: str) -> str:
        users = f"{{user: admin, password: p}}, {user('documented', HUB)}"
        return (
            f'server_name: {name}\njetstream {{domain: {name}, store_dir: "{server_folder}/{name}"}}\n'
            f"accounts {{fleet {{jetstream: enabled, users: [{users}]}}}}\n{more}"
        )

    (port,) = free_ports(1)
    listen = f'leafnodes {{listen: "127.0.0.1:{port}"}}'
    remote = f'leafnodes {{remotes: [{{url: "nats://admin:p@127.0.0.1:{port}", account: fleet}}]}}'
    with (
        servers.nats_in(server_folder / "hub", config=config("hub", listen)) as hub,
        servers.nats_in(server_folder / "leaf", config=config("leaf", remote)) as leaf,
    ):
        yield Topology(*(server.url.replace("//", "//admin:p@") for server in (hub, leaf)))


def settings(nats_url: str, database_url: str, **more: Any) -> Settings:
    return Settings(nats_url=nats_url, database_url=database_url, http="off", **more)


async def streams(url: str) -> list[str | None]:
    async with await nats.connect(url) as client:
        return [stream.config.name for stream in await client.jetstream().streams_info()]


async def test_leaf_node_uses_the_configured_jetstream_domain(
    topology: Topology, database_url: str, eventually: Eventually
) -> None:
    there = settings(topology.leaf, database_url, nats_api_prefix=HUB)
    projector = Projector(there)

    async def is_created() -> bool:
        try:
            await projector.init()
        except BrokerUnavailableError:
            return False  # the leaf node is not connected yet
        return True

    await eventually(is_created)
    assert (await streams(topology.hub), await streams(topology.leaf)) == ([STREAM], [])
    await simulate(there, Simulation(endpoints=5, seed=1, events=200), asyncio.Event())
    await projector.run(until_caught_up=True)
    assert (await projector.status()).checkpoint_seq == 200
    assert (await projector.verify()).clean
    assert (await projector.rebuild()).clean
    found = {finding.name for finding in (await projector.doctor()).findings} - FAULTS
    assert found == {"fsync-off", "full-page-writes-off"}
    documented = settings(topology.leaf.replace("admin", "documented"), database_url, nats_api_prefix=HUB)
    guest = Projector(documented)
    await guest.run(until_caught_up=True)
    assert (await guest.verify()).clean
    assert {finding.name for finding in (await guest.doctor()).findings} - FAULTS == found
    async with await nats.connect(topology.hub) as client:
        assert (await client.jetstream().consumer_info(STREAM, CONSUMER)).ack_floor.stream_seq == 200
    assert await streams(topology.leaf) == []


async def test_init_creates_no_stream_if_another_domain_has_one(topology: Topology, database_url: str) -> None:
    await Projector(settings(topology.hub, database_url, nats_api_prefix=HUB)).init()
    projector = Projector(settings(topology.leaf, database_url))
    with pytest.raises(StreamMissingError, match="PROJECTOR_NATS_API_PREFIX"):
        await projector.run()
    with pytest.raises(SettingError, match=r"in 'leaf', the JetStream domain.*PROJECTOR_NATS_API_PREFIX.*\$JS\.leaf"):
        await projector.init()
    assert await streams(topology.leaf) == []
    assert await Projector(settings(topology.leaf, database_url, nats_api_prefix=LEAF)).init()
    assert await streams(topology.leaf) == [STREAM]


IMPORTING = """accounts {
  owner {
    jetstream: enabled, users: [{user: owner, password: p}]
    exports: [{service: "$JS.API.>", response_type: stream}, {service: "$JS.ACK.>"}, {service: "kaa.v1.events.>"}]
  }
  guest {
    users: [{user: guest, password: p}]
    imports: [
      {service: {account: owner, subject: "$JS.API.>"}, to: "JS.fleet.API.>"}
      {service: {account: owner, subject: "$JS.ACK.>"}}
      {service: {account: owner, subject: "kaa.v1.events.>"}}
    ]
  }
}"""


async def test_an_imported_api_is_used_at_the_prefix_of_the_settings(server_folder: Path, database_url: str) -> None:
    with servers.nats_in(server_folder / "nats", config=IMPORTING) as server:
        url = server.url.replace("//", "//guest:p@")
        without = Projector(settings(url, database_url))
        with pytest.raises(BrokerUnavailableError, match=r"not enabled.*PROJECTOR_NATS_API_PREFIX"):
            await without.status()
        assert "jetstream-off" in {finding.name for finding in (await without.doctor()).findings}
        wrong = Projector(settings(url, database_url, nats_api_prefix="JS.other.API"))
        with pytest.raises(BrokerUnavailableError, match=r"no JetStream answers.*PROJECTOR_NATS_API_PREFIX"):
            await wrong.status()
        there = settings(url, database_url, nats_api_prefix="JS.fleet.API")
        projector = Projector(there)
        assert await projector.init()
        await simulate(there, Simulation(endpoints=5, seed=1, events=200), asyncio.Event())
        await projector.run(until_caught_up=True)
        assert (await projector.verify()).clean
        found = {finding.name for finding in (await projector.doctor()).findings} - FAULTS
        assert found == {"fsync-off", "full-page-writes-off"}
        assert await streams(server.url.replace("//", "//owner:p@")) == [STREAM]


async def test_overlapping_stream_is_not_created_and_the_existing_one_is_named(
    nats_url: str, nats_client: Client, database_url: str
) -> None:
    await nats_client.jetstream().add_stream(name="OTHER", subjects=["kaa.>"])
    with pytest.raises(BrokerRefusedError, match=r"another stream stores its subjects: OTHER; set PROJECTOR_STREAM"):
        await Projector(settings(nats_url, database_url)).init()
    projector = Projector(settings(nats_url, database_url, stream="OTHER"))
    assert not await projector.init()
    await projector.run(until_caught_up=True)


async def test_a_mirror_can_be_followed_and_replayed_and_the_doctor_finds_nothing_wrong_with_it(
    scene: Scene, nats_client: Client, eventually: Eventually
) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.publish(subjects.build("kpc", "config.updated"), b"")
    await nats_client.request(
        "$JS.API.STREAM.CREATE.COPY",
        b'{"name": "COPY", "mirror": {"name": "%b"}}' % STREAM.encode(),
        timeout=PATIENCE_S,
    )

    async def is_copied() -> bool:
        try:
            return (await jetstream.stream_info("COPY")).state.last_seq == 1
        except NotFoundError:
            return False

    await eventually(is_copied)
    projector = Projector(scene.settings(stream="COPY"))
    await projector.run(until_caught_up=True)
    assert (await projector.verify()).clean
    found = {finding.name for finding in (await projector.doctor()).findings} - FAULTS
    assert found == {"fsync-off", "full-page-writes-off"}


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("max_bytes_required: true", "create the stream yourself, with max_bytes"),
        ("max_file: 0", "raise the storage limits of the account"),
    ],
)
async def test_limit_that_prevents_init_from_creating_the_stream_is_named_with_its_remedy(
    limit: str, said: str, server_folder: Path, database_url: str
) -> None:
    account = f"accounts {{fleet {{jetstream {{{limit}}}, users: [{{user: u, password: p}}]}}}}"
    with servers.nats_in(server_folder / "nats", config=account) as server:
        projector = Projector(settings(server.url.replace("//", "//u:p@"), database_url))
        with pytest.raises((BrokerRefusedError, BrokerUnavailableError), match=said):
            await projector.init()


async def test_work_queue_is_refused_with_its_remedy(nats_url: str, nats_client: Client, database_url: str) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name=STREAM, subjects=list(subjects.filters()), retention="workqueue")
    projector = Projector(settings(nats_url, database_url))
    with pytest.raises(BrokerRefusedError, match="copy it into a stream with limits retention"):
        await projector.run(until_caught_up=True)
    assert "retention" in {finding.name for finding in (await projector.doctor()).findings}
