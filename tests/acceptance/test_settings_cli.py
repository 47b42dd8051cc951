import asyncio

import pytest

from tests.support.command_line import CommandLine
from tests.support.forked import Ended

# Valid settings, for servers that do not exist.
RIGHT = {
    "PROJECTOR_NATS_URL": "nats://fleet:s3cret@127.0.0.1:1",
    "PROJECTOR_DATABASE_URL": "postgresql://fleet:s3cret@127.0.0.1:1/fleet",
}


def assert_one_line(ended: Ended, code: int) -> str:
    assert ended.code == code, ended
    assert ended.err.count("\n") == 1, ended
    return ended.err


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PROJECTOR_DATABASE_URL", None, ["is not set", "postgresql://"]),
        ("PROJECTOR_BATCH_SIZE", "0", ["'0'", "from 1 to 100000"]),
        ("PROJECTOR_CONFIG", "no/such.toml", ["no/such.toml"]),
    ],
)
async def test_wrong_setting_is_named_with_its_value_and_the_allowed_values(
    anywhere: CommandLine, variable: str, value: str | None, said: list[str]
) -> None:
    line = assert_one_line(await anywhere("status", **RIGHT | {variable: value}), 2)
    assert all(part in line for part in [variable, *said]), line


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PROJECTOR_DATABASE_URL", "mysql://fleet:s3cret@db/x", ["mysql://", "@db/x", "postgresql://"]),
        ("PROJECTOR_DATABASE_URL", "mysql://db/x?user=fleet&password=s3cret", ["postgresql://"]),
        ("PROJECTOR_DATABASE_URL", "postgresql://fleet:s3cret/more@db/x", ["@db/x", "escaped"]),
        ("PROJECTOR_NATS_URL", "http://s3cret@nats:4222", ["http://", "@nats:4222", "nats://"]),
        ("PROJECTOR_NATS_URL", "nats://fleet:s3cret@a:1,nats://fleet:s3cret@b:port", ["@b:port"]),
    ],
)
async def test_a_wrong_url_is_shown_without_its_password_even_in_a_traceback(
    anywhere: CommandLine, variable: str, value: str, said: list[str]
) -> None:
    ended = await anywhere("--verbose", "status", **RIGHT | {variable: value})
    assert ended.code == 2
    assert "Traceback" in ended.err
    assert all(part in ended.err for part in [variable, *said]), ended.err
    assert "s3cret" not in ended.err + ended.out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('databse_url = "postgresql://fleet:s3cret@db/x"', ["'databse_url'", "database_url"]),
        ('database_url = "postgresql://fleet:s3cret@db/x', ["projector.toml"]),
    ],
    ids=["unknown setting", "not TOML"],
)
async def test_error_of_a_settings_file_shows_no_password(anywhere: CommandLine, content: str, said: list[str]) -> None:
    (anywhere.folder / "projector.toml").write_text(content, encoding="utf-8")
    line = assert_one_line(await anywhere("status", PROJECTOR_CONFIG=None), 2)
    assert all(part in line for part in said), line
    assert "s3cret" not in line


async def test_unreachable_servers_do_not_reveal_passwords(anywhere: CommandLine) -> None:
    short, verbose, running = await asyncio.gather(
        anywhere("status", **RIGHT), anywhere("--verbose", "status", **RIGHT), anywhere.start("run", **RIGHT)
    )
    await running.logs("retrying")
    running.send(15)
    ended = await running.end()
    assert_one_line(short, 3)
    assert (verbose.code, ended.code) == (3, 0)
    assert "fleet" in ended.err  # the URLs are shown, without secrets
    assert {entry["event"] for entry in running.logged} == {"starting", "retrying", "stopping", "stopped"}
    assert all("s3cret" not in output.out + output.err for output in (short, verbose, ended))


async def test_settings_precedence_is_flag_environment_file_default(
    anywhere: CommandLine,
) -> None:
    """Every source names a revision that does not exist, so that the error shows which one was used."""
    (anywhere.folder / "projector.toml").write_text('revision = "working-folder"', encoding="utf-8")
    named = anywhere.folder / "named.toml"
    named.write_text('revision = "named"', encoding="utf-8")
    nothing: dict[str, str | None] = {**RIGHT, "PROJECTOR_CONFIG": None}
    file = {**nothing, "PROJECTOR_CONFIG": str(named)}
    environment = {**file, "PROJECTOR_REVISION": "environment"}
    winners = {
        "working-folder": anywhere("status", **nothing),
        "named": anywhere("status", **file),
        "environment": anywhere("status", **environment),
        "flag": anywhere("status", "--revision", "flag", **environment),
    }
    for winner, ended in zip(winners, await asyncio.gather(*winners.values()), strict=True):
        assert f"PROJECTOR_REVISION='{winner}'" in assert_one_line(ended, 2)
