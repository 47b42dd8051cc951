"""NATS headers (ADR-4), of publishers and of the server."""

from collections.abc import Mapping

_VERSION = b"NATS/1.0"


def parse_headers(raw: bytes) -> Mapping[str, str]:
    """Return the headers of a message; malformed lines are ignored, and the last of several values wins."""
    headers: dict[str, str] = {}
    for line in raw.decode("utf-8", "surrogateescape").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


def parse_status(raw: bytes) -> tuple[str, str, Mapping[str, str]]:
    """Return the status, its description and the headers of a message from the server itself."""
    first, _, _ = raw.partition(b"\r\n")
    status, _, description = first.removeprefix(_VERSION).strip().decode("utf-8", "replace").partition(" ")
    return status, description.strip(), parse_headers(raw)
