"""Settings: flags, then environment (`PROJECTOR_…`), then one TOML file, then defaults."""

import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from projector.errors import SettingError

ENVIRONMENT_PREFIX = "PROJECTOR_"
CONFIG_VARIABLE = "PROJECTOR_CONFIG"
CONFIG_NAME = "projector.toml"

_NAME = r"^[^\s.*>/\\]+$"  # what JetStream allows in the name of a stream or a consumer
_TOKEN = re.compile(r"[^\s.*>]+")
_NATS_SCHEMES = ("nats", "tls", "ws", "wss")
_ENCRYPTED_SSL_MODES = ("require", "verify-ca", "verify-full")
_POSTGRES_SCHEMES = ("postgresql", "postgres")
_HOST_PORT = re.compile(r"(?P<host>[^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")
_LAST_PORT = 65535
_NEXT_URL = re.compile(r",\s*(?=\w+://)")
_URL = re.compile(r"(\w+://)?(.*@)?(.*)", re.DOTALL)
_PASSWORD = re.compile(r"(?<=password=)[^&]*", re.IGNORECASE)


class Settings(BaseSettings):
    """Where things are and how the projector works; read with `load`."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,  # compose files pass on what is not set as empty
        frozen=True,
        extra="forbid",
    )

    nats_url: SecretStr = Field(
        default=SecretStr("nats://127.0.0.1:4222"),
        description="NATS server, or several separated by commas: nats://[user:password@]host:port.",
    )
    nats_credentials: FilePath | None = Field(default=None, description="File with the NATS user's credentials.")
    nats_nkey: FilePath | None = Field(default=None, description="File with the NATS user's nkey seed.")
    nats_tls_ca: FilePath | None = Field(
        default=None, description="Certificates to trust for NATS, instead of the system's."
    )
    nats_tls_certificate: FilePath | None = Field(default=None, description="Our certificate, where NATS asks for one.")
    nats_tls_key: FilePath | None = Field(default=None, description="The key of our certificate.")
    stream: str = Field(default="KAA_ENDPOINT_EVENTS", pattern=_NAME, description="JetStream stream to follow.")
    consumer: str = Field(
        default="endpoint-state-projector", pattern=_NAME, description="Durable consumer to follow it with."
    )
    originators: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Originators whose events are folded, separated by commas; all if empty."
    )
    database_url: SecretStr = Field(
        description="Postgres: postgresql://[user[:password]@]host[:port][,…]/database; ?host=/folder for a socket."
    )
    revision: str = Field(default="kaa-2017-04", description="Revision of the event protocol.")
    batch_size: int = Field(default=8000, ge=1, le=100_000, description="Most messages folded in one transaction.")
    allow_plaintext_passwords: bool = Field(
        default=False, description="Send passwords to other machines although the connection is not encrypted."
    )
    linger_ms: int = Field(default=5, ge=0, le=1000, description="How long a batch may wait to become full.")
    http: str = Field(
        default="127.0.0.1:9464", description="Where the daemon answers over HTTP: host:port, or off; port 0: any."
    )
    ready_lag_s: float = Field(default=60, ge=0, description="Lag in seconds above which /readyz says no.")

    @field_validator("originators", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("originators")
    @classmethod
    def _check_originators(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a service instance: it may not have spaces, dots, * or >")
        return tuple(sorted(set(value)))

    @field_validator("nats_url")
    @classmethod
    def _check_nats_url(cls, value: SecretStr) -> SecretStr:
        for url in servers(value):
            _check_url(url, _NATS_SCHEMES)
        return value

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        _check_url(value.get_secret_value(), _POSTGRES_SCHEMES)
        return value

    @field_validator("http")
    @classmethod
    def _check_http(cls, value: str) -> str:
        http_address(value)
        return value

    @model_validator(mode="after")
    def _check_passwords_are_safe(self) -> Self:
        if self.allow_plaintext_passwords:
            return self
        encrypted = self.nats_tls_ca is not None or self.nats_tls_certificate is not None
        for url in servers(self.nats_url):
            parts = urlsplit(url)
            if parts.username is not None and not encrypted and parts.scheme not in ("tls", "wss"):
                _check_loopback(parts.hostname, "PROJECTOR_NATS_URL", "tls:// instead of nats://")
        parts = urlsplit(self.database_url.get_secret_value())
        query = dict(parse_qsl(parts.query))
        password = parts.password or query.get("password") or os.environ.get("PGPASSWORD")
        if password and query.get("sslmode", os.environ.get("PGSSLMODE")) not in _ENCRYPTED_SSL_MODES:
            # In the order in which the driver looks for them.
            named = [place.hostname or "" for place in _places(self.database_url.get_secret_value())]
            for host in named if any(named) else (query.get("host") or os.environ.get("PGHOST", "")).split(","):
                _check_loopback(host, "PROJECTOR_DATABASE_URL", "?sslmode=verify-full")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say where settings come from, the strongest first."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _config_file)


_config_file: Path | None = None  # the library asks for its sources on the class, so the path has to wait here


def load(flags: Mapping[str, Any], *, config: Path | None, fallback: Path | None) -> Settings:
    """Read the settings.

    The file is the one given, or that of PROJECTOR_CONFIG, or `projector.toml` in the working folder,
    or the fallback, whichever is there first.

    Raises:
        SettingError: a setting is missing or wrong; it names itself, its value and what is allowed.
    """
    global _config_file  # noqa: PLW0603 - see above
    _config_file = _find_config(config, fallback)
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise SettingError("; ".join(_explain(error))) from None  # the original would show secrets
    except ValueError as error:
        raise SettingError(f"{_config_file} cannot be read: {error}") from error


def servers(nats_url: SecretStr) -> tuple[str, ...]:
    """Return the servers of a NATS URL."""
    return tuple(filter(None, map(str.strip, nats_url.get_secret_value().split(","))))


def http_address(http: str) -> tuple[str, int] | None:
    """Return host and port of the HTTP server, or None where it is off.

    Raises:
        ValueError: it is neither.
    """
    if http == "off":
        return None
    found = _HOST_PORT.fullmatch(http)
    if found is None or int(found["port"]) > _LAST_PORT:
        raise ValueError("it must be off, or host:port, where an IPv6 host stands in brackets")
    return found["host"].strip("[]"), int(found["port"])


def masked(urls: str) -> str:
    """Return a URL, or several separated by commas, that can be shown: what may be a secret is starred."""
    return ",".join(map(_masked, _NEXT_URL.split(urls)))


def _masked(url: str) -> str:
    # A password is also hidden where it makes the URL one that cannot be parsed.
    scheme, login, place = _URL.fullmatch(url).groups(default="")  # type: ignore[union-attr]
    user, colon, _ = login.rstrip("@").partition(":")
    if login and not colon and not scheme.startswith(_POSTGRES_SCHEMES):
        user = "***"  # a lone user name in a NATS URL is a token
    return f"{scheme}{user}{':***' if colon else ''}{'@' if login else ''}{_PASSWORD.sub('***', place)}"


def _find_config(config: Path | None, fallback: Path | None) -> Path | None:
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise SettingError(f"there is no settings file {str(named)!r}: correct --config or {CONFIG_VARIABLE}")
        return named
    return next((path for path in (Path(CONFIG_NAME), fallback) if path is not None and path.is_file()), None)


def _check_url(url: str, schemes: tuple[str, ...]) -> None:
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in schemes:
        raise ValueError(f"it must begin with {' or '.join(f'{known}://' for known in schemes)}")
    try:
        for place in _places(url):
            place.port  # noqa: B018 - raises ValueError where it is not a number
    except ValueError:
        # The original would show what it took for the port, which may be a part of the password.
        raise ValueError("its port is not a number, or its password has characters that must be escaped") from None


def _places(url: str) -> list[SplitResult]:
    """Return each host of a URL with its port; Postgres may have several, separated by commas."""
    return [urlsplit(f"//{place}") for place in urlsplit(url).netloc.rpartition("@")[2].split(",")]


def _check_loopback(host: str | None, variable: str, remedy: str) -> None:
    """Refuse a password on its way to another machine in the clear."""
    if not host or host.startswith("/") or host == "localhost":
        return
    try:
        if ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise ValueError(
        f"{variable}: the password would go to {host} unencrypted; use {remedy}, "
        "or set PROJECTOR_ALLOW_PLAINTEXT_PASSWORDS=true"
    )


def _explain(error: ValidationError) -> Iterable[str]:
    for problem in error.errors(include_url=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
        if problem["type"] == "missing":
            yield f"{variable} is not set: {Settings.model_fields[name].description}"
        elif problem["type"] == "extra_forbidden":
            yield f"{name!r} is no setting; known are {', '.join(Settings.model_fields)}"
        elif not name:
            yield problem["msg"].removeprefix("Value error, ")
        else:
            value = problem["input"]
            shown = masked(str(value)) if name.endswith("_url") else str(value)
            yield f"{variable}={shown!r}: {problem['msg'].removeprefix('Value error, ')}"
