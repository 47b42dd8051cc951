import json
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from projector.dev.embedded import EmbeddedPostgres
from tests.support import servers
from tests.support.command_line import CommandLine
from tests.support.fixtures import Eventually, Query
from tests.support.versions import FAULTS


@pytest.fixture
def careful_postgres(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """Postgres with the settings of `projector dev`, not the fast ones of the tests."""
    with servers.postgres_in(server_folder / "postgres", {}) as server:
        yield server


async def test_doctor_finds_nothing_in_the_demo(
    anywhere: CommandLine, server_folder: Path, query: Query, eventually: Eventually
) -> None:
    async def folds() -> bool:
        settings = tomllib.loads((server_folder / "projector.toml").read_text())
        return bool(await query(settings["database_url"], "SELECT FROM endpoint_state LIMIT 1"))

    demonstration = await anywhere.start("dev", "--data", str(server_folder), "--endpoints", "50", "--rate", "200")
    await demonstration.prints("query it from another terminal")
    config = ("--config", str(server_folder / "projector.toml"))
    try:
        await eventually(folds)
        examination = json.loads(await anywhere.succeeds("doctor", "--json", *config))
        assert examination["findings"] == []
        assert (await anywhere.succeeds("doctor", *config)).splitlines()[-1] == "errors: 0, warnings: 0"
    finally:
        demonstration.send(signal.SIGINT)  # killed, it would leave its servers running
        assert (await demonstration.end()).code == 0


@pytest.mark.skipif(bool(FAULTS), reason="`doctor` warns about these servers")
async def test_errors_end_with_1_and_warnings_alone_do_not(
    projector: CommandLine, careful_postgres: EmbeddedPostgres, nats_client: Client
) -> None:
    projector.environment["PROJECTOR_DATABASE_URL"] = careful_postgres.url
    ended = await projector("doctor", "--json")
    assert ended.code == 1
    examination = json.loads(ended.out)
    assert [(finding["name"], finding["severity"]) for finding in examination["findings"]] == [
        ("stream-missing", "error"),
        ("not-migrated", "error"),
    ]
    assert all(set(finding) == {"name", "severity", "what", "remedy"} for finding in examination["findings"])

    ended = await projector("doctor")
    assert ended.code == 1
    first, remedy, *_, last = ended.out.splitlines()
    assert first == "error stream-missing: there is no stream 'KAA_ENDPOINT_EVENTS'"
    assert "projector init" in remedy
    assert last == "errors: 2, warnings: 0"

    await projector.succeeds("init")
    assert json.loads(await projector.succeeds("doctor", "--json"))["findings"] == []
    stream = (await nats_client.jetstream().stream_info("KAA_ENDPOINT_EVENTS")).config
    await nats_client.jetstream().update_stream(stream, max_age=3600)
    assert (await projector.succeeds("doctor")).splitlines()[-1] == "errors: 0, warnings: 1"


async def test_doctor_shows_no_secret_of_unreachable_servers(anywhere: CommandLine) -> None:
    ended = await anywhere(
        "doctor",
        PROJECTOR_NATS_URL="nats://fleet:s3cret@127.0.0.1:1",
        PROJECTOR_DATABASE_URL="postgresql://fleet:s3cret@127.0.0.1:1/fleet",
    )
    assert ended.code == 1
    assert "nats-unreachable" in ended.out
    assert "postgres-unreachable" in ended.out
    assert "s3cret" not in ended.out + ended.err


async def test_doctor_shows_no_secret_of_a_monitoring_url(anywhere: CommandLine) -> None:
    ended = await anywhere("doctor", "--nats-monitoring", "http://fleet:s3cret@127.0.0.1:1")
    assert ended.code == 2
    assert "s3cret" not in ended.out + ended.err


async def test_a_wrong_setting_is_not_a_finding(prepared: CommandLine) -> None:
    assert (await prepared("doctor", "--nats-monitoring", "file:///etc/passwd")).code == 2
    assert (await prepared("doctor", "--revision", "none")).code == 2
