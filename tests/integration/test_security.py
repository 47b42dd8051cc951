"""Who gets in, who does not, and what crosses the wire unencrypted."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trustme
from nats_keys import operated, public, user_key

from projector.embedded import EmbeddedNats, EmbeddedPostgres
from projector.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    SettingError,
)
from projector.runtime import Runtime, Simulation
from projector.settings import load
from projector.storage.connection import connect as connect_to_postgres
from projector.stream.connection import Broker, connect

Query: TypeAlias = Callable[..., Awaitable[list[tuple[Any, ...]]]]
Flags: TypeAlias = dict[str, str]

SECRET = "s3cret"  # noqa: S105 - it is looked for wherever it must not be


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Path:
    """A folder with certificates, and with those of an authority that nobody trusts."""
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
            server = stack.enter_context(EmbeddedNats(server_folder / "nats", config=config))
            return server.url.removeprefix("nats://")

        yield serve


def tls(files: Path, more: str = "") -> str:
    return f'tls {{cert_file: "{files}/server.pem", key_file: "{files}/server.key", ca_file: "{files}/ca.pem"; {more}}}'


def login(way: str, files: Path) -> tuple[str, Flags, Flags]:
    """The configuration of a server, settings that it lets in, and others that it does not."""
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


def runtime(flags: Flags, address: str, database_url: str) -> Runtime:
    url = flags.get("nats_url", "nats://ADDRESS").replace("ADDRESS", address)
    return Runtime(load({**flags, "nats_url": url, "database_url": database_url}, config=None, fallback=None))


every_way = pytest.mark.parametrize(
    "way", ["user and password", "token", "nkey", "credentials", "TLS", "TLS on both sides"]
)


@every_way
async def test_who_shows_what_the_server_asks_for_is_let_in(
    way: str, files: Path, serve: Callable[[str], str], database_url: str
) -> None:
    config, right, _ = login(way, files)
    guest = runtime(right, serve(config), database_url)
    assert await guest.init()
    await guest.simulate(Simulation(endpoints=5, seed=1, events=20), asyncio.Event())
    await guest.live(until_caught_up=True).run()
    assert (await guest.status()).checkpoint_seq == 20


@every_way
async def test_who_shows_something_else_is_not_let_in_and_no_secret_is_told(
    way: str, files: Path, serve: Callable[[str], str], database_url: str
) -> None:
    config, _, wrong = login(way, files)
    # A certificate that is not accepted may be one that is being renewed: that is waited for.
    family = BrokerUnavailableError if way.startswith("TLS") else BrokerRefusedError
    with pytest.raises(family) as refused:
        await runtime(wrong, serve(config), database_url).init()
    told = "".join(traceback.format_exception(refused.value))
    assert SECRET not in told
    assert "SUA" not in told  # how the seed of a user begins
    assert "eyJ" not in told  # how every JWT begins


async def test_a_server_that_offers_no_tls_is_refused_before_anything_is_sent_to_it(files: Path) -> None:
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


async def test_a_daemon_is_not_let_in_without_tls_where_the_server_requires_it(
    files: Path, serve: Callable[[str], str]
) -> None:
    with pytest.raises(BrokerUnavailableError):
        await connect(Broker(urls=(f"nats://{serve(tls(files))}",)), name="test")


@pytest.fixture
async def sealed_postgres(server_folder: Path, files: Path, query: Query) -> AsyncIterator[str]:
    """A Postgres that lets `fleet` in over encrypted TCP only, with a password; yields host and port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"listen_addresses": "127.0.0.1", "port": str(port), "fsync": "off"}
    with EmbeddedPostgres(server_folder / "postgres", settings) as server:
        data = server._data
        owner = data.stat()
        for name in ("server.pem", "server.key"):
            shutil.copy(files / name, data / name)
            os.chown(data / name, owner.st_uid, owner.st_gid)
            (data / name).chmod(0o600)
        (data / "pg_hba.conf").write_text("local all all trust\nhostssl all fleet 127.0.0.1/32 scram-sha-256\n")
        for statement in (
            f"CREATE ROLE fleet LOGIN PASSWORD '{SECRET}-right'",
            "ALTER SYSTEM SET ssl_cert_file = 'server.pem'",
            "ALTER SYSTEM SET ssl_key_file = 'server.key'",
            "ALTER SYSTEM SET ssl = on",
            "SELECT pg_reload_conf()",
        ):
            await query(f"{server.url}&port={port}", statement)
        yield f"127.0.0.1:{port}"


async def test_postgres_is_reached_over_tls_and_only_if_it_is_who_it_should_be(
    sealed_postgres: str, files: Path
) -> None:
    def url(password: str, query: str) -> str:
        return f"postgresql://fleet:{SECRET}-{password}@{sealed_postgres}/postgres?{query}"

    for query in ("sslmode=require", f"sslmode=verify-full&sslrootcert={files}/ca.pem"):
        connection = await connect_to_postgres(url("right", query), purpose="test")
        assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        await connection.close()
    for password, query, error, said in (
        ("right", f"sslmode=verify-full&sslrootcert={files}/foreign-ca.pem", DatabaseUnavailableError, "certificate"),
        ("right", "sslmode=disable", DatabaseRefusedError, "no encryption"),
        ("wrong", "sslmode=require", DatabaseRefusedError, "password"),
    ):
        with pytest.raises(error, match=said) as refused:
            await connect_to_postgres(url(password, query), purpose="test")
        assert SECRET not in "".join(traceback.format_exception(refused.value))


PLAIN = [
    ("nats_url", f"nats://fleet:{SECRET}@10.0.0.1:4222"),
    ("nats_url", f"nats://{SECRET}@nats.example:4222"),
    ("nats_url", f"ws://fleet:{SECRET}@nats.example"),
    ("nats_url", f"nats://127.0.0.1:4222,nats://fleet:{SECRET}@nats.example"),
    ("nats_url", f"nats://fleet:{SECRET}@localhost.example"),
    ("database_url", f"postgresql://fleet:{SECRET}@10.0.0.1/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@127.0.0.1.example/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@127.0.0.1,10.0.0.1/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@/fleet?host=/run,db.example"),
    ("database_url", f"postgresql://db.example/fleet?user=fleet&password={SECRET}"),
    ("database_url", f"postgresql://fleet:{SECRET}@db.example/fleet?sslmode=prefer"),
]
GUARDED = [
    ("nats_url", f"tls://fleet:{SECRET}@nats.example"),
    ("nats_url", f"nats://fleet:{SECRET}@127.0.0.1:4222"),
    ("nats_url", f"nats://fleet:{SECRET}@[::1]:4222"),
    ("database_url", f"postgresql://fleet:{SECRET}@localhost/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@127.0.0.2/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@/fleet?host=/run/postgresql"),
    ("database_url", f"postgresql://fleet:{SECRET}@db.example/fleet?sslmode=require"),
    ("database_url", f"postgresql://fleet:{SECRET}@db.example/fleet?sslmode=verify-full"),
]


def settings(**flags: str) -> Any:
    return load({"database_url": "postgresql:///fleet", **flags}, config=None, fallback=None)


@pytest.mark.parametrize(("name", "url"), PLAIN)
def test_a_password_is_not_sent_to_another_machine_in_the_clear_unless_that_is_allowed(name: str, url: str) -> None:
    with pytest.raises(SettingError, match=f"PROJECTOR_{name.upper()}.*unencrypted") as refused:
        settings(**{name: url})
    assert SECRET not in str(refused.value)
    settings(**{name: url, "allow_plaintext_passwords": "true"})


@pytest.mark.parametrize(("name", "url"), GUARDED)
def test_a_password_may_stay_on_this_machine_or_go_encrypted(name: str, url: str) -> None:
    settings(**{name: url})


@pytest.mark.parametrize(
    ("variable", "value", "url"),
    [
        ("PGPASSWORD", SECRET, "postgresql://fleet@db.example/fleet"),
        ("PGHOST", "db.example", f"postgresql://fleet:{SECRET}@/fleet"),
        ("PGSSLMODE", "prefer", f"postgresql://fleet:{SECRET}@db.example/fleet"),
    ],
)
def test_what_the_driver_takes_from_the_environment_counts_as_well(
    variable: str, value: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingError, match="unencrypted"):
        settings(database_url=url)


COMMANDS = [
    ("init",),
    ("run",),
    ("rebuild",),
    ("verify",),
    ("status", "--json"),
    ("sql", "select 1"),
    ("dead-letters", "list"),
    ("simulate", "--events", "1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_tells_a_secret_to_anybody_at_any_verbosity(
    command: tuple[str, ...], nats_url: str, sealed_postgres: str, tmp_path: Path
) -> None:
    """With servers that are away, that let nobody in, and with URLs that are wrong."""
    away = "127.0.0.1:1"
    postgres = f"postgresql://fleet:{SECRET}@{{}}/postgres?sslmode=require".format
    broker = f"nats://fleet:{SECRET}@{{}}".format
    for flags in (
        {"NATS_URL": broker(away), "DATABASE_URL": postgres(sealed_postgres)},
        {"NATS_URL": broker(nats_url.removeprefix("nats://")), "DATABASE_URL": postgres("127.0.0.1:port")},
        {"NATS_URL": f"nats://fleet:{SECRET}/x@{away}", "DATABASE_URL": postgres(sealed_postgres)},
    ):
        environment = {f"PROJECTOR_{name}": value for name, value in flags.items()}
        ended = subprocess.run(
            [sys.executable, "-m", "projector", "--verbose", *command],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode, ended
        assert SECRET not in ended.stdout + ended.stderr, ended
