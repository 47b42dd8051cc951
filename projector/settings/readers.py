"""Readers of single settings: each converts a text, or a value of the right type.

Each raises ValueError with a text that says what is allowed.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from math import isfinite
from pathlib import Path

_NAME = re.compile(r"[^\s.*>/\\]+")  # names of streams and consumers that JetStream allows
_RETENTION = re.compile(r"([0-9]{1,6})\s*([dh])")
_LEAST_RETENTION, _MOST_RETENTION = timedelta(hours=1), timedelta(days=3650)
_EVENTS = ("kaa", "v1", "events")
"""Beginning of the subjects of the events, and of other events of the platform."""
_LONGEST_PREFIX = 200
_TOKEN = re.compile(r"[^\s.*>]+")
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def text(value: object) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise ValueError("it must be a text")  # noqa: TRY004 - every reader raises ValueError
    return value


def stream_name(value: object) -> str:
    """Read the name of a stream or a consumer."""
    if not _NAME.fullmatch(text(value)):
        raise ValueError("it must not be empty, nor have spaces, dots, *, >, / or \\")
    return text(value)


def subject(value: object) -> str:
    """Read a subject without wildcards."""
    if not all(_TOKEN.fullmatch(token) for token in text(value).split(".")):
        raise ValueError("it must be names separated by dots, without spaces, * and >")
    return text(value)


def originators(value: object) -> tuple[str, ...]:
    """Read names of service instances, separated by commas; return them sorted, each once."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise ValueError("it must be names, separated by commas")  # noqa: TRY004 - see text
    stripped = {text(name).strip() for name in names} - {""}
    for name in stripped:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a service instance: it has spaces, dots, * or >")
    return tuple(sorted(stripped))


def whole_number(least: int, most: int) -> Callable[[object], int]:
    """Return a reader of whole numbers from `least` to `most`."""

    def read(value: object) -> int:
        if isinstance(value, str | int) and not isinstance(value, bool):
            try:
                number = int(value)
            except ValueError:
                number = None
            if number is not None and least <= number <= most:
                return number
        raise ValueError(f"it must be a whole number from {least} to {most}")

    return read


def number(least: float) -> Callable[[object], float]:
    """Return a reader of numbers that are not less than `least`."""

    def read(value: object) -> float:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                found = float(value)
            except ValueError:
                found = None
            if found is not None and isfinite(found) and found >= least:
                return found
        raise ValueError(f"it must be a number, at least {least:g}")

    return read


def switch(value: object) -> bool:
    """Read true or false."""
    found = value if isinstance(value, bool) else _SWITCH.get(str(value).strip().lower())
    if found is None:
        raise ValueError("it must be true or false")
    return found


def retention(value: object) -> timedelta | None:
    """Read a number of days or hours, such as 7d or 36h, or `off`, which is None."""
    if value is None or value == "off":
        return None
    if isinstance(value, str) and (found := _RETENTION.fullmatch(value.strip())):
        count = int(found[1])
        value = timedelta(days=count) if found[2] == "d" else timedelta(hours=count)
    if not isinstance(value, timedelta) or not _LEAST_RETENTION <= value <= _MOST_RETENTION:
        raise ValueError("it must be off, or a number of days or hours such as 7d or 36h, from 1h to 3650d")
    return value


def publish_prefix(value: object) -> str | None:
    """Read the subject prefix of published changes, or `off`, which is None."""
    if value in (None, "off"):
        return None
    prefix = subject(value)
    tokens = prefix.split(".")
    if not prefix.isprintable():
        raise ValueError("it must be names separated by dots, without control characters")
    if len(prefix) > _LONGEST_PREFIX:
        raise ValueError(f"it must not be longer than {_LONGEST_PREFIX} characters")
    if tokens[0].startswith(("$", "_INBOX")):
        raise ValueError("it must not begin with $ or _INBOX, which NATS uses itself")
    if all(one == other for one, other in zip(tokens, _EVENTS, strict=False)):
        raise ValueError(
            f"the subjects {prefix}.> overlap {'.'.join(_EVENTS)}.>, those of the events: "
            "the changes would be stored among them; choose a prefix that does not begin so"
        )
    return prefix


def file(value: object) -> Path | None:
    """Read the path of a file that exists; None is no file."""
    if value is None:
        return None
    if not isinstance(value, str | Path) or not Path(value).is_file():
        raise ValueError("there is no such file")
    return Path(value)
