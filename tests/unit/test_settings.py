"""Settings: their sources, and invalid values."""

from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from projector.errors import SettingError
from projector.settings import SETTINGS, Settings, load
from projector.settings.urls import http_address

RIGHT = {"database_url": "postgresql://db/x"}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)


def settings(**flags: Any) -> Settings:
    return load(RIGHT | flags, config=None, fallback=None)


@pytest.mark.parametrize(
    ("http", "address"),
    [
        ("off", None),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),  # noqa: S104 - it is only read
        ("[::1]:8080", ("::1", 8080)),
        ("metrics.example.org:80", ("metrics.example.org", 80)),
    ],
)
def test_http_is_a_host_and_a_port(http: str, address: tuple[str, int] | None) -> None:
    assert http_address(settings(http=http).http) == address


@pytest.mark.parametrize("http", ["", "9464", "on", "localhost", "::1:80", "[::1]", "host:port", "host:65536", "a b:1"])
def test_http_that_is_neither_off_nor_an_address_is_refused(http: str) -> None:
    with pytest.raises(SettingError, match=r"PROJECTOR_HTTP=.* it must be off, or host:port"):
        settings(http=http)


def test_http_is_served_to_this_machine_only_by_default() -> None:
    assert http_address(SETTINGS["http"].default) == ("127.0.0.1", 9464)


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("batch_size", "4000", 4000),
        ("batch_size", 4000, 4000),
        ("batch_size", " 12 ", 12),
        ("linger_ms", "0", 0),
        ("ready_lag_s", "0.5", 0.5),
        ("ready_lag_s", 3, 3.0),
        ("allow_plaintext_passwords", "true", True),
        ("allow_plaintext_passwords", "1", True),
        ("allow_plaintext_passwords", "No", False),
        ("allow_plaintext_passwords", True, True),
        ("originators", "kpc, epr,,kpc", ("epr", "kpc")),
        ("originators", ["kpc", "epr"], ("epr", "kpc")),
        ("originators", "", ()),
        ("stream", "EVENTS", "EVENTS"),
        ("nats_nkey", __file__, Path(__file__)),
        ("nats_nkey", Path(__file__), Path(__file__)),
        ("changes", "7d", timedelta(days=7)),
        ("changes", " 36h", timedelta(hours=36)),
        ("changes", "1 d", timedelta(days=1)),
        ("changes", timedelta(hours=1), timedelta(hours=1)),
        ("changes", "off", None),
        ("changes", None, None),
    ],
)
def test_a_value_is_read_from_a_text_or_from_its_own_type(name: str, value: object, read: object) -> None:
    found = getattr(settings(**{name: value}), name)
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(("batch_size", value, "a whole number from 1 to 100000") for value in ("0", "100001", "1.5", "", 1.5, True)),
        ("linger_ms", -1, "a whole number from 0 to 1000"),
        *(("ready_lag_s", value, "a number, at least 0") for value in ("-1", "nan", "inf", "", "x", True)),
        ("ready_lag_s", [], "a number, at least 0"),
        *(("allow_plaintext_passwords", value, "true or false") for value in ("maybe", "", 2)),
        *(("stream", value, "not be empty") for value in ("", "a b", "a.b", "a*", ">", "a/b", "a\\b")),
        ("stream", 5, "a text"),
        ("consumer", "a.b", "not be empty"),
        *(("originators", value, "name") for value in ("a b", "a.b", "*", ["a", "b.c"], 5)),
        ("originators", [5], "a text"),
        ("nats_credentials", "/no/such/file", "no such file"),
        ("nats_credentials", "", "no such file"),
        ("nats_tls_ca", 5, "no such file"),
        ("revision", 5, "a text"),
        *(
            ("changes", value, "days or hours such as 7d")
            for value in ("7", "7w", "0d", "-1d", "1.5d", "4000d", "x", "", 7)
        ),
        ("changes", timedelta(minutes=59), "from 1h to 3650d"),
        ("nats_url", "http://a", "nats://"),
        ("nats_url", 5, "a text"),
        ("database_url", "db/x", "postgresql://"),
        ("database_url", "postgresql://db/x?sslmode", "name=value"),
        ("database_url", "postgresql://db/x?sslmode=require&", "name=value"),
        ("database_url", "postgresql://db/x?sslmode=verify-full&sslrootcert=/no/such/file", "sslrootcert is no file"),
    ],
)
def test_invalid_value_is_named_with_the_allowed_values(name: str, value: object, allowed: str) -> None:
    with pytest.raises(SettingError) as refused:
        settings(**{name: value})
    assert str(refused.value).startswith(f"PROJECTOR_{name.upper()}={str(value)!r}: ")
    assert allowed in str(refused.value)


@pytest.mark.parametrize(
    ("value", "read"), [("off", None), ("fleet", "fleet"), ("kaa.v2", "kaa.v2"), ("a.b-c", "a.b-c")]
)
def test_changes_are_published_under_a_prefix(value: str, read: str | None) -> None:
    assert settings(changes="7d", publish=value).publish == read


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        *((prefix, "names separated by dots") for prefix in ("a..b", ".a", "a.", "a.*", "a.>", "*", "a b", "a\tb")),
        *((prefix, "$ or _INBOX") for prefix in ("$JS.API", "$x", "_INBOX", "_INBOX.a")),
        *((prefix, "overlap kaa.v1.events.>") for prefix in ("kaa", "kaa.v1", "kaa.v1.events", "kaa.v1.events.a.b.c")),
        ("a\x01", "control characters"),
        ("a" * 201, "not be longer"),
        (5, "a text"),
    ],
)
def test_a_prefix_that_cannot_be_published_to_is_refused(prefix: object, reason: str) -> None:
    with pytest.raises(SettingError) as refused:
        settings(changes="7d", publish=prefix)
    assert reason in str(refused.value)


def test_publishing_needs_the_log_of_changes() -> None:
    with pytest.raises(SettingError, match=r"PROJECTOR_PUBLISH='fleet': it needs the log .* set PROJECTOR_CHANGES"):
        settings(publish="fleet")


def test_at_sign_in_a_password_of_postgres_has_to_be_escaped() -> None:
    with pytest.raises(SettingError, match="%40") as refused:
        settings(database_url="postgresql://fleet:s3@cret@db.example.org/x?sslmode=require")
    assert "s3@cret" not in str(refused.value)
    settings(database_url="postgresql://fleet:s3%40cret@db.example.org/x?sslmode=require")


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SettingError) as refused:
        load({"batch_size": "0", "linger_ms": "x"}, config=None, fallback=None)
    told = str(refused.value)
    assert [variable in told for variable in ("BATCH_SIZE", "LINGER_MS", "DATABASE_URL is not set")] == [True] * 3


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "projector.toml"
    config.write_text('consumer = "of-the-file"', encoding="utf-8")
    for setting in SETTINGS.values():
        monkeypatch.setenv(setting.variable, "")
    found = load(RIGHT, config=config, fallback=None)
    assert found.consumer == "of-the-file"
    default = {name: setting.default for name, setting in SETTINGS.items()}
    assert {**asdict(found), "consumer": default["consumer"]} == default | RIGHT
    with pytest.raises(SettingError, match="PROJECTOR_DATABASE_URL is not set"):
        load({}, config=None, fallback=None)


def test_empty_flag_overrides_the_originators_of_a_file(tmp_path: Path) -> None:
    config = tmp_path / "projector.toml"
    config.write_text('originators = "kpc"', encoding="utf-8")
    assert load(RIGHT, config=config, fallback=None).originators == ("kpc",)
    assert load(RIGHT | {"originators": ""}, config=config, fallback=None).originators == ()


# In a program.


def test_a_program_reads_arguments_then_the_environment_then_defaults_and_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "projector.toml").write_text('consumer = "of-the-file"', encoding="utf-8")
    monkeypatch.setenv("PROJECTOR_DATABASE_URL", "postgresql://environment/x")
    monkeypatch.setenv("PROJECTOR_BATCH_SIZE", "7")
    monkeypatch.setenv("PROJECTOR_LINGER_MS", "7")
    found = Settings(linger_ms=9)
    assert (found.database_url, found.batch_size, found.linger_ms) == ("postgresql://environment/x", 7, 9)
    assert found.consumer == SETTINGS["consumer"].default
    assert Settings(database_url="postgresql://argument/x").database_url == "postgresql://argument/x"


def test_several_settings_can_exist_with_files_of_their_own(tmp_path: Path) -> None:
    configs = [tmp_path / "one.toml", tmp_path / "other.toml"]
    for config in configs:
        config.write_text(f'consumer = "{config.stem}"', encoding="utf-8")
    assert [load(RIGHT, config=config, fallback=None).consumer for config in configs] == ["one", "other"]
    assert settings().consumer == SETTINGS["consumer"].default


def test_settings_cannot_be_changed_and_a_changed_copy_is_checked() -> None:
    found = settings()
    with pytest.raises(AttributeError):
        found.http = "off"  # type: ignore[misc]
    assert replace(found, http="off").http == "off"
    with pytest.raises(SettingError, match="PROJECTOR_HTTP"):
        replace(found, http="on")


def test_the_representation_has_no_secret() -> None:
    secret = "s3cret"  # noqa: S105 - an example
    found = settings(nats_url=f"nats://u:{secret}@127.0.0.1", database_url=f"postgresql://u:{secret}@127.0.0.1/x")
    assert secret not in repr(found)
    assert "KAA_ENDPOINT_EVENTS" in repr(found)
