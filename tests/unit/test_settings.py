from pathlib import Path

import pytest

from projector.errors import SettingError
from projector.settings import Settings, http_address, load

RIGHT = {"database_url": "postgresql://db/x"}


@pytest.mark.parametrize(
    ("http", "address"),
    [
        ("off", None),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),  # noqa: S104 - somebody may want that
        ("[::1]:8080", ("::1", 8080)),
        ("metrics.example.org:80", ("metrics.example.org", 80)),
    ],
)
def test_where_to_answer_is_a_host_and_a_port(http: str, address: tuple[str, int] | None) -> None:
    assert http_address(load(RIGHT | {"http": http}, config=None, fallback=None).http) == address


@pytest.mark.parametrize("http", ["", "9464", "on", "localhost", "::1:80", "[::1]", "host:port", "host:65536", "a b:1"])
def test_anything_else_is_refused_with_what_is_allowed(http: str) -> None:
    with pytest.raises(SettingError, match=r"PROJECTOR_HTTP=.* it must be off, or host:port"):
        load(RIGHT | {"http": http}, config=None, fallback=None)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "projector.toml"
    config.write_text('consumer = "of-the-file"', encoding="utf-8")
    for name in Settings.model_fields:
        monkeypatch.setenv(f"PROJECTOR_{name.upper()}", "")
    settings = load(RIGHT, config=config, fallback=None)
    assert settings.consumer == "of-the-file"
    default = {name: field.default for name, field in Settings.model_fields.items()}
    assert {**settings.model_dump(), "consumer": default["consumer"]} == {
        **default,
        "database_url": settings.database_url,
    }
    with pytest.raises(SettingError, match="PROJECTOR_DATABASE_URL is not set"):
        load({}, config=None, fallback=None)


def test_originators_of_a_file_give_way_to_a_flag_that_is_empty(tmp_path: Path) -> None:
    config = tmp_path / "projector.toml"
    config.write_text('originators = "kpc"', encoding="utf-8")
    assert load(RIGHT, config=config, fallback=None).originators == ("kpc",)
    assert load(RIGHT | {"originators": ""}, config=config, fallback=None).originators == ()


def test_only_this_machine_is_answered_unless_told_otherwise() -> None:
    assert http_address(Settings.model_fields["http"].default) == ("127.0.0.1", 9464)
