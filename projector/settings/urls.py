"""URLs of servers: read, checked for exposed passwords, and masked."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from projector.settings.readers import text

_NATS_SCHEMES = ("nats", "tls", "ws", "wss")
_POSTGRES_SCHEMES = ("postgresql", "postgres")
_ENCRYPTED_SSL_MODES = ("require", "verify-ca", "verify-full")
_POSTGRES_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
_HOST_PORT = re.compile(r"(?P<host>[^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")
_LAST_PORT = 65535
_HOSTS = re.compile(r"(\w+://(?:[^/?#]*@)?)([^/?#]*)(.*)", re.DOTALL)
_NEXT_URL = re.compile(r",\s*(?=\w+://)")
_URL = re.compile(r"(\w+://)?(.*@)?(.*)", re.DOTALL)
_PASSWORD = re.compile(r"(?<=password=)[^&]*", re.IGNORECASE)


def read_nats_url(value: object) -> str:
    """Read the URL of a NATS server, or several separated by commas; see `readers`."""
    for url in servers(text(value)):
        _check_url(url, _NATS_SCHEMES)
    return text(value)


def read_database_url(value: object) -> str:
    """Read the URL of a database; see `readers`."""
    url = text(value)
    _check_url(url, _POSTGRES_SCHEMES)
    parts = _of_first_host(url)
    if parts.netloc.count("@") > 1:
        # The driver takes what follows the first one for the host.
        raise ValueError("its password has characters that must be escaped: @ is %40")
    try:
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("what follows its question mark must be name=value, separated by &") from None
    for name, file in query:
        if name in _POSTGRES_FILES and not Path(file).is_file():
            raise ValueError(f"its {name} is no file")
    return url


def read_http(value: object) -> str:
    """Read where to serve HTTP; see `readers`."""
    http_address(text(value))
    return text(value)


def servers(nats_url: str) -> tuple[str, ...]:
    """Return the URL of each NATS server."""
    return tuple(filter(None, map(str.strip, nats_url.split(","))))


def http_address(http: str) -> tuple[str, int] | None:
    """Return the host and port of the HTTP server, or None if it is off.

    Raises:
        ValueError: the text is neither.
    """
    if http == "off":
        return None
    found = _HOST_PORT.fullmatch(http)
    if found is None or int(found["port"]) > _LAST_PORT:
        raise ValueError("it must be off, or host:port, with an IPv6 host in brackets")
    return found["host"].strip("[]"), int(found["port"])


def masked(urls: str) -> str:
    """Return a URL, or several separated by commas, with passwords and tokens replaced by asterisks."""
    return ",".join(map(_masked, _NEXT_URL.split(urls)))


def exposed_passwords(nats_url: str, database_url: str, *, nats_is_encrypted: bool) -> Iterator[str]:
    """Yield an error text for each password that would be sent to another machine unencrypted."""
    for url in servers(nats_url):
        parts = urlsplit(url)
        encrypted = nats_is_encrypted or parts.scheme in ("tls", "wss")
        if parts.username is not None and not encrypted and not _is_local(parts.hostname):
            yield _complaint("PROJECTOR_NATS_URL", parts.hostname, "tls:// instead of nats://")
    parts = _of_first_host(database_url)
    query = dict(parse_qsl(parts.query))
    password = parts.password or query.get("password") or os.environ.get("PGPASSWORD")
    if password and query.get("sslmode", os.environ.get("PGSSLMODE")) not in _ENCRYPTED_SSL_MODES:
        # In the order in which the driver looks for the host.
        named = [place.hostname or "" for place in _places(database_url)]
        for host in named if any(named) else (query.get("host") or os.environ.get("PGHOST", "")).split(","):
            if not _is_local(host):
                yield _complaint("PROJECTOR_DATABASE_URL", host, "?sslmode=verify-full")


def _masked(url: str) -> str:
    # The URL may be one that cannot be parsed because of its password.
    scheme, login, place = _URL.fullmatch(url).groups(default="")  # type: ignore[union-attr]
    user, colon, _ = login.rstrip("@").partition(":")
    if login and not colon and not scheme.startswith(_POSTGRES_SCHEMES):
        user = "***"  # a user without a password is a token in a NATS URL
    return f"{scheme}{user}{':***' if colon else ''}{'@' if login else ''}{_PASSWORD.sub('***', place)}"


def _check_url(url: str, schemes: tuple[str, ...]) -> None:
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in schemes:
        raise ValueError(f"it must begin with {' or '.join(f'{known}://' for known in schemes)}")
    try:
        for place in _places(url):
            place.port  # noqa: B018 - raises ValueError if it is not a number
    except ValueError:
        # The original text quotes the supposed port, which may be part of the password.
        raise ValueError("its port is not a number, or its password has characters that must be escaped") from None


def _places(url: str) -> list[SplitResult]:
    """Return each host of a URL with its port; Postgres may have several, separated by commas."""
    _, hosts, _ = _HOSTS.fullmatch(url).groups()  # type: ignore[union-attr]
    return [urlsplit(f"//{place}") for place in hosts.split(",")]


def _of_first_host(url: str) -> SplitResult:
    """Return the parts of a URL with its first host only: some Pythons refuse IPv6 addresses among several hosts."""
    before, hosts, after = _HOSTS.fullmatch(url).groups()  # type: ignore[union-attr]
    return urlsplit(f"{before}{hosts.partition(',')[0]}{after}")


def _is_local(host: str | None) -> bool:
    if not host or host.startswith("/") or host == "localhost":
        return True
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _complaint(variable: str, host: str | None, remedy: str) -> str:
    return (
        f"{variable}: the password would be sent to {host} unencrypted; use {remedy}, "
        "or set PROJECTOR_ALLOW_PLAINTEXT_PASSWORDS=true"
    )
