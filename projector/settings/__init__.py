"""Settings: arguments or flags, then environment (`PROJECTOR_…`), then one TOML file, then defaults."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from projector.errors import SettingError
from projector.settings import readers, urls

ENVIRONMENT_PREFIX = "PROJECTOR_"
CONFIG_VARIABLE = "PROJECTOR_CONFIG"
CONFIG_NAME = "projector.toml"

_ABSENT: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How one setting is read."""

    name: str
    description: str
    default: Any
    """None if the setting is required."""
    required: bool
    read: Callable[[object], Any]
    """Converts a text, a value of a TOML file or an argument to the value; raises ValueError."""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"{ENVIRONMENT_PREFIX}{self.name.upper()}"

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return f"--{self.name.replace('_', '-')}"


def _setting(description: str, *, read: Callable[[object], Any], default: Any = _ABSENT, secret: bool = False) -> Any:
    return field(
        default=_ABSENT, repr=not secret, metadata={"description": description, "read": read, "default": default}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the servers and of the projector.

    An argument that is not given is taken from the environment variable of its name, such as `PROJECTOR_BATCH_SIZE`,
    and otherwise from its default; `database_url` has no default.
    No file is read: only the command line reads one.

    Raises:
        SettingError: a setting is missing or invalid; the error lists each, with its value and what is allowed.
    """

    nats_url: str = _setting(
        "NATS server, or several separated by commas: nats://[user:password@]host:port.",
        default="nats://127.0.0.1:4222",
        read=urls.read_nats_url,
        secret=True,
    )
    nats_credentials: Path | None = _setting(
        "File with the credentials of the NATS user.", default=None, read=readers.file
    )
    nats_nkey: Path | None = _setting("File with the nkey seed of the NATS user.", default=None, read=readers.file)
    nats_tls_ca: Path | None = _setting(
        "File with the certificates to trust for NATS, instead of the system's.", default=None, read=readers.file
    )
    nats_tls_certificate: Path | None = _setting(
        "File with the client certificate, if NATS requires one.", default=None, read=readers.file
    )
    nats_tls_key: Path | None = _setting(
        "File with the key of the client certificate.", default=None, read=readers.file
    )
    nats_api_prefix: str = _setting(
        "Prefix of the JetStream API: $JS.<domain>.API for another domain, or the subject of an imported API.",
        default="$JS.API",
        read=readers.subject,
    )
    stream: str = _setting("JetStream stream to follow.", default="KAA_ENDPOINT_EVENTS", read=readers.stream_name)
    consumer: str = _setting(
        "Durable consumer that follows the stream.", default="endpoint-state-projector", read=readers.stream_name
    )
    originators: tuple[str, ...] = _setting(
        "Originators whose events are folded, separated by commas; all if empty.", default=(), read=readers.originators
    )
    database_url: str = _setting(
        "Postgres: postgresql://[user[:password]@]host[:port][,…]/database; ?host=/folder for a socket.",
        read=urls.read_database_url,
        secret=True,
    )
    revision: str = _setting("Revision of the event protocol.", default="kaa-2017-04", read=readers.text)
    batch_size: int = _setting(
        "Largest number of messages folded in one transaction, above 8,000 only in a deep backlog; 1 to 100,000.",
        default=50_000,
        read=readers.whole_number(1, 100_000),
    )
    allow_plaintext_passwords: bool = _setting(
        "Send passwords to other machines over unencrypted connections.", default=False, read=readers.switch
    )
    linger_ms: int = _setting(
        "Milliseconds that a batch may wait for more messages, 0 to 1000.",
        default=5,
        read=readers.whole_number(0, 1000),
    )
    changes: timedelta | None = _setting(
        "How long the log of changes is kept, such as 7d or 36h; off, the default: it is not written.",
        default=None,
        read=readers.retention,
    )
    publish: str | None = _setting(
        "Subject prefix under which changes are published to JetStream; off, the default: they are not. "
        "Needs the log of changes.",
        default=None,
        read=readers.publish_prefix,
    )
    http: str = _setting(
        "Where the daemon serves HTTP: host:port, or off; port 0 picks a free port.",
        default="127.0.0.1:9464",
        read=urls.read_http,
    )
    ready_lag_s: float = _setting("Lag in seconds above which /readyz answers 503.", default=60, read=readers.number(0))

    def __post_init__(self) -> None:
        problems = []
        for setting in SETTINGS.values():
            value = getattr(self, setting.name)
            if value is _ABSENT:
                # Compose files pass unset variables as empty ones.
                value = os.environ.get(setting.variable) or setting.default
                if value is None and setting.required:
                    problems.append(f"{setting.variable} is not set: {setting.description}")
                    continue
            try:
                object.__setattr__(self, setting.name, setting.read(value))
            except ValueError as error:
                problems.append(f"{setting.variable}={_shown(setting.name, value)!r}: {error}")
        if not problems and self.publish is not None and self.changes is None:
            problems.append(
                f"PROJECTOR_PUBLISH={self.publish!r}: it needs the log of changes; "
                "set PROJECTOR_CHANGES to how long to keep it, such as 7d"
            )
        if not problems and not self.allow_plaintext_passwords:
            encrypted = self.nats_tls_ca is not None or self.nats_tls_certificate is not None
            problems.extend(urls.exposed_passwords(self.nats_url, self.database_url, nats_is_encrypted=encrypted))
        if problems:
            raise SettingError("; ".join(problems))


SETTINGS: Mapping[str, Setting] = {
    one.name: Setting(
        name=one.name,
        description=one.metadata["description"],
        default=None if one.metadata["default"] is _ABSENT else one.metadata["default"],
        required=one.metadata["default"] is _ABSENT,
        read=one.metadata["read"],
    )
    for one in fields(Settings)
}
"""Every setting by its name, in the order of the documentation."""


def load(flags: Mapping[str, Any], *, config: Path | None, fallback: Path | None) -> Settings:
    """Read the settings of the command line.

    The file is the one given, or that of PROJECTOR_CONFIG.
    If neither is given, it is `projector.toml` in the working directory or the fallback, whichever exists first.

    Raises:
        SettingError: a setting is missing or invalid, or the file does not exist or cannot be read.
    """
    file = _find_config(config, fallback)
    in_file = {} if file is None else _read_config(file)
    given = {name: value for name, value in in_file.items() if not os.environ.get(SETTINGS[name].variable)}
    return Settings(**given | {name: value for name, value in flags.items() if value is not None})


def _find_config(config: Path | None, fallback: Path | None) -> Path | None:
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise SettingError(f"there is no settings file {str(named)!r}: correct --config or {CONFIG_VARIABLE}")
        return named
    return next((path for path in (Path(CONFIG_NAME), fallback) if path is not None and path.is_file()), None)


def _read_config(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{file} cannot be read: {error}") from error
    for name in found:
        if name not in SETTINGS:
            raise SettingError(f"{name!r} is not a setting; the settings are {', '.join(SETTINGS)}")
    return found


def _shown(name: str, value: object) -> str:
    return urls.masked(str(value)) if name.endswith("_url") else str(value)
