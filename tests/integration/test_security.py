"""Which logins are accepted, which are refused, and what is sent unencrypted."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
import trustme

from projector.dev.embedded import EmbeddedPostgres
from projector.dev.simulation import Simulation, simulate
from projector.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
    SettingError,
)
from projector.runtime import Projector
from projector.settings import Settings, load
from projector.stream.connection import Broker, connect
from tests.support import servers
from tests.support.fixtures import Query
from tests.support.nats_keys import operated, public, user_key

Flags: TypeAlias = dict[str, str]

SECRET = "s3cret"  # noqa: S105 - it is looked for wherever it must not be


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Path:
    """A folder with certificates, also of an authority that is not trusted."""
    for name, ca in (("", authority), ("foreign-", trustme.CA())):
        ca.cert_pem.write_to_path(str(tmp_path / f"{name}ca.pem"))
        for who in ("127.0.0.1", "projector@fleet.example"):
            issued = ca.issue_cert(who)
            label = f"{name}{'server' if who[0].isdigit() else 'client'}"
            issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{label}.pem"))
            issued.private_key_pem.write_to_path(str(tmp_path / f"{label}.key"))
    return tmp_path


@pytest.fixture
def serve(server_folder: Path) -> Iterator[Callable[[str], str]]:
    """Starts a NATS server with a configuration, and returns its host and port."""
    with contextlib.ExitStack() as stack:

        def serve(config: str) -> str:
            server = stack.enter_context(servers.nats_in(server_folder / "nats", config=config))
            return server.url.removeprefix("nats://")

        yield serve


def tls(files: Path, more: str = "") -> str:
    return f'tls {{cert_file: "{files}/server.pem", key_file: "{files}/server.key", ca_file: "{files}/ca.pem"; {more}}}'


def login(way: str, files: Path) -> tuple[str, Flags, Flags]:
    """The configuration of a server, settings that it accepts, and settings that it refuses."""
    url = "nats://{}@ADDRESS".format
    encrypted = {"nats_url": "tls://ADDRESS"}
    if way == "user and password":
        config = f"authorization {{user: fleet, password: {SECRET}-right}}"
        return config, {"nats_url": url(f"fleet:{SECRET}-right")}, {"nats_url": url(f"fleet:{SECRET}-wrong")}
    if way == "token":
        config = f"authorization {{token: {SECRET}-right}}"
        return config, {"nats_url": url(f"{SECRET}-right")}, {"nats_url": url(f"{SECRET}-wrong")}
    if way == "nkey":
        right, wrong = user_key(), user_key()
        for name, key in (("right.nk", right), ("wrong.nk", wrong)):
            (files / name).write_bytes(key._seed)
        config = f"authorization {{users: [{{nkey: {public(right)}}}]}}"
        return config, {"nats_nkey": f"{files}/right.nk"}, {"nats_nkey": f"{files}/wrong.nk"}
    if way == "credentials":
        config, right_file, wrong_file = operated(files)
        return config, {"nats_credentials": str(right_file)}, {"nats_credentials": str(wrong_file)}
    trusted = {"nats_tls_ca": f"{files}/ca.pem"}
    if way == "TLS":
        return tls(files), encrypted | trusted, encrypted | {"nats_tls_ca": f"{files}/foreign-ca.pem"}
    ours, foreign = (
        {"nats_tls_certificate": f"{files}/{name}.pem", "nats_tls_key": f"{files}/{name}.key"}
        for name in ("client", "foreign-client")
    )
    return tls(files, "verify: true"), trusted | ours, trusted | foreign


def settings(flags: Flags, address: str, database_url: str) -> Settings:
    url = flags.get("nats_url", "nats://ADDRESS").replace("ADDRESS", address)
    return load({**flags, "http": "off", "nats_url": url, "database_url": database_url}, config=None, fallback=None)


every_way = pytest.mark.parametrize(
    "way", ["user and password", "token", "nkey", "credentials", "TLS", "TLS on both sides"]
)


@every_way
async def test_valid_credentials_are_accepted(
    way: str, files: Path, serve: Callable[[str], str], database_url: str
) -> None:
    config, right, _ = login(way, files)
    right_settings = settings(right, serve(config), database_url)
    guest = Projector(right_settings)
    assert await guest.init()
    await simulate(right_settings, Simulation(endpoints=5, seed=1, events=20), asyncio.Event())
    await guest.run(until_caught_up=True)
    assert (await guest.status()).checkpoint_seq == 20


@every_way
async def test_invalid_credentials_are_refused_without_showing_a_secret(
    way: str, files: Path, serve: Callable[[str], str], database_url: str
) -> None:
    config, _, wrong = login(way, files)
    # A rejected certificate may be about to be renewed, so the daemon retries.
    family = BrokerUnavailableError if way.startswith("TLS") else BrokerRefusedError
    with pytest.raises(family) as refused:
        await Projector(settings(wrong, serve(config), database_url)).init()
    told = "".join(traceback.format_exception(refused.value))
    assert SECRET not in told
    assert "SUA" not in told  # how the seed of a user begins
    assert "eyJ" not in told  # how every JWT begins


@pytest.mark.parametrize("setting", ["nats_nkey", "nats_credentials"])
@pytest.mark.parametrize("damage", ["nothing", "nonsense", "not ASCII", "no JWT", "no seed", "a short seed", "CR LF"])
async def test_invalid_credentials_file_is_a_setting_error_that_does_not_quote_the_file(
    setting: str, damage: str, files: Path, nats_url: str, database_url: str
) -> None:
    whole = operated(files)[1].read_bytes()
    holds = {
        "nothing": b"",
        "nonsense": SECRET.encode(),
        "not ASCII": f"é{SECRET}".encode(),
        "no JWT": whole[whole.index(b"-----BEGIN USER") :],
        "no seed": whole[: whole.index(b"SU", whole.index(b"BEGIN USER"))],
        "a short seed": re.sub(rb"\n(SU.{20}).*\n", rb"\n\1\n", whole),
        "CR LF": whole.replace(b"\n", b"\r\n"),
    }
    (files / "damaged").write_bytes(holds[damage])
    damaged = settings({setting: f"{files}/damaged"}, nats_url.removeprefix("nats://"), database_url)
    with pytest.raises(SettingError, match=f"PROJECTOR_{setting.upper()}") as refused:
        await Projector(damaged).init()
    told = "".join(traceback.format_exception(refused.value))
    assert not [secret for secret in (SECRET, "SUA", "eyJ") if secret in told]


async def test_server_without_tls_is_refused_before_anything_is_sent(files: Path) -> None:
    heard = asyncio.get_running_loop().create_future()

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.11.0", "proto": 1, "max_payload": 1048576, "headers": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        heard.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(impostor, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        broker = Broker(urls=(f"tls://fleet:{SECRET}@127.0.0.1:{port}",), tls_ca=files / "ca.pem")
        with pytest.raises(BrokerRefusedError, match="TLS is required"):
            await connect(broker, name="test")
        assert await asyncio.wait_for(heard, 10) == b""


async def test_daemon_without_tls_is_refused_by_a_server_that_requires_it(
    files: Path, serve: Callable[[str], str]
) -> None:
    with pytest.raises(BrokerUnavailableError):
        await connect(Broker(urls=(f"nats://{serve(tls(files))}",)), name="test")


@pytest.fixture
async def guarded_postgres_url(spare_postgres: EmbeddedPostgres, query: Query) -> str:
    """The URL of a role with a wrong password."""
    await query(spare_postgres.url, f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}-right'")
    rules = spare_postgres._data / "pg_hba.conf"
    rules.write_text(f"local all guarded scram-sha-256\n{rules.read_text()}")
    await query(spare_postgres.url, "SELECT pg_reload_conf()")
    return spare_postgres.url.replace("postgres@", f"guarded:{SECRET}@")


SHORT_AND_LONG = (("status",), ("--verbose", "status"))
EVERY_VERBOSE = tuple(
    ("--verbose", *command.split())
    for command in ("init", "run", "rebuild", "sql select", "dead-letters list", "simulate --events 1")
)


async def test_no_command_prints_a_secret_at_any_verbosity(guarded_postgres_url: str, tmp_path: Path) -> None:
    """With servers that are unreachable or refuse the login, and with wrong URLs."""
    away, away_from = f"nats://fleet:{SECRET}@127.0.0.1:1", f"postgresql://fleet:{SECRET}@127.0.0.1:1/fleet"
    for nats_url, database_url, commands, code in (
        (away, guarded_postgres_url, SHORT_AND_LONG + EVERY_VERBOSE, 3),
        (away, away_from.replace("1/", "port/"), SHORT_AND_LONG, 2),
        (f"nats://fleet:{SECRET}/x@127.0.0.1:1", away_from, SHORT_AND_LONG, 2),
    ):
        environment = {"PROJECTOR_NATS_URL": nats_url, "PROJECTOR_DATABASE_URL": database_url}
        started = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "projector", *command),
                cwd=tmp_path,
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for command in commands
        ]
        for process in started:
            output, _ = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == code, output
            assert SECRET not in output.decode()


async def test_tls_failure_names_the_setting_to_change(files: Path, serve: Callable[[str], str]) -> None:
    url = f"tls://{serve(tls(files, 'verify: true'))}"
    with pytest.raises(BrokerUnavailableError, match=r"certificate verify failed.*PROJECTOR_NATS_TLS_CA"):
        await connect(Broker(urls=(url,), tls_ca=files / "foreign-ca.pem"), name="test")
    with pytest.raises(BrokerUnavailableError, match="requires a client certificate: set PROJECTOR_NATS_TLS_CERT"):
        await connect(Broker(urls=(url,), tls_ca=files / "ca.pem"), name="test")
    broker = Broker(
        urls=(url,),
        tls_ca=files / "ca.pem",
        tls_certificate=files / "client.pem",
        tls_key=files / "client.key",
    )
    await (await connect(broker, name="test")).close()


async def test_publishing_without_a_stream_is_not_reported_as_a_lost_connection(
    nats_url: str, database_url: str
) -> None:
    guest = settings({"nats_url": nats_url}, nats_url.removeprefix("nats://"), database_url)
    simulation = Simulation(endpoints=5, seed=1, events=20)
    with pytest.raises(BrokerUnavailableError, match=r"no stream stores the events; create one with `projector init`"):
        await simulate(guest, simulation, asyncio.Event())
    await Projector(guest).init()
    await simulate(guest, simulation, asyncio.Event())
