"""What is sent to Postgres, unencrypted and encrypted."""

import asyncio
import contextlib
import ssl
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from projector.dev.embedded import EmbeddedPostgres
from projector.errors import DatabaseLoginError, DatabaseUnavailableError, SettingError
from projector.settings import load
from projector.storage import connection as connection_module
from projector.storage.connection import connect

TLS_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
SECRET = "s3cret"  # noqa: S105 - it is looked for wherever it must not be


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificates of a server, of its authority and of another authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "foreign-ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    return folder


@contextlib.asynccontextmanager
async def encrypted(target: str, files: Path | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a proxy in front of Postgres that offers TLS if it has certificates; yields its address and plaintext input.

    The embedded Postgres is built without TLS.
    """
    heard: list[bytes] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            heard.append(await reader.readexactly(8))
            writer.write(b"S" if files else b"N")
            if files is None:
                heard.append(await reader.read())
                return
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(files / "server.pem", files / "server.key")
            with contextlib.suppress(ssl.SSLError):
                await writer.start_tls(context)
                inner, outer = await asyncio.open_unix_connection(target)
                await asyncio.gather(forward(reader, outer), forward(inner, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


async def test_password_is_sent_only_to_a_verified_postgres(postgres_server: EmbeddedPostgres, files: Path) -> None:
    async with encrypted(str(postgres_server._data / ".s.PGSQL.5432"), files) as (address, heard):
        url = f"postgresql://postgres:{SECRET}@{address}/postgres?sslmode={{}}".format
        for query in ("require", f"verify-full&sslrootcert={files}/ca.pem"):
            connection = await connect(url(query), purpose="test")
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
        with pytest.raises(DatabaseUnavailableError, match=r"certificate.*sslrootcert") as refused:
            await connect(url(f"verify-full&sslrootcert={files}/foreign-ca.pem"), purpose="test")
        assert SECRET not in "".join(traceback.format_exception(refused.value))
        assert set(heard) == {TLS_REQUEST}


async def test_postgres_without_tls_is_refused_before_anything_is_sent() -> None:
    async with encrypted("", None) as (address, heard):
        with pytest.raises(DatabaseLoginError, match=r"does not offer.*SSL.*correct sslmode"):
            await connect(f"postgresql://postgres:{SECRET}@{address}/x?sslmode=require", purpose="test")
    assert set(heard) <= {TLS_REQUEST, b""}


async def test_unresponsive_host_leaves_time_for_the_next_one(
    postgres_server: EmbeddedPostgres, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_CONNECT_TIMEOUT_S", 20.0)
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with (
        await asyncio.start_server(silent, "127.0.0.1", 0) as away,
        encrypted(str(postgres_server._data / ".s.PGSQL.5432"), files) as (address, _),
    ):
        hosts = f"127.0.0.1:{away.sockets[0].getsockname()[1]},{address}"
        connection = await connect(f"postgresql://postgres@{hosts}/postgres?sslmode=require", purpose="test")
        assert asked.is_set()
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


PLAIN = [
    ("nats_url", f"nats://fleet:{SECRET}@10.0.0.1:4222"),
    ("nats_url", f"nats://{SECRET}@nats.example:4222"),
    ("nats_url", f"ws://fleet:{SECRET}@nats.example"),
    ("nats_url", f"nats://127.0.0.1:4222,nats://fleet:{SECRET}@nats.example"),
    ("nats_url", f"nats://fleet:{SECRET}@localhost.example"),
    ("database_url", f"postgresql://fleet:{SECRET}@10.0.0.1/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@127.0.0.1.example/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@127.0.0.1,10.0.0.1/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@127.0.0.1:5432,10.0.0.1:5432/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@/fleet?host=/run,db.example"),
    ("database_url", f"postgresql://fleet:{SECRET}@db.example/fleet?host=/run/postgresql"),
    ("database_url", f"postgresql://db.example/fleet?user=fleet&password={SECRET}"),
    ("database_url", f"postgresql://fleet:{SECRET}@db.example/fleet?sslmode=prefer"),
]
GUARDED = [
    ("nats_url", f"tls://fleet:{SECRET}@nats.example"),
    ("nats_url", f"nats://fleet:{SECRET}@127.0.0.1:4222"),
    ("nats_url", f"nats://fleet:{SECRET}@[::1]:4222"),
    ("database_url", f"postgresql://fleet:{SECRET}@localhost/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@127.0.0.2/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@127.0.0.1:5432,[::1]:5433/fleet"),
    ("database_url", f"postgresql://fleet:{SECRET}@/fleet?host=/run/postgresql"),
    ("database_url", f"postgresql://fleet:{SECRET}@a.example:5432,b.example:5433/fleet?sslmode=verify-full"),
    ("database_url", f"postgresql://fleet:{SECRET}@db.example/fleet?sslmode=require"),
    ("database_url", f"postgresql://fleet:{SECRET}@db.example/fleet?sslmode=verify-full"),
]


def settings(**flags: str) -> Any:
    return load({"database_url": "postgresql:///fleet", **flags}, config=None, fallback=None)


@pytest.mark.parametrize(("name", "url"), PLAIN)
def test_password_is_not_sent_unencrypted_to_another_machine_unless_allowed(name: str, url: str) -> None:
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
def test_driver_settings_in_the_environment_are_checked(
    variable: str, value: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingError, match="unencrypted"):
        settings(database_url=url)
