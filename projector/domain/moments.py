"""Times as text."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache


def time_text(unix_ms: int | None) -> str | int | None:
    """Return a time as Postgres writes it in JSON in UTC.

    A time that only a damaged row can hold stays a number.
    """
    if unix_ms is None:
        return None
    seconds, ms = divmod(unix_ms, 1000)
    text = _second(seconds)
    return unix_ms if text is None else text + _FRACTIONS[ms]


@lru_cache(maxsize=10_000)
def _second(unix_s: int) -> str | None:
    try:
        return datetime.fromtimestamp(unix_s, UTC).isoformat().removesuffix("+00:00")  # `strftime` does not pad years
    except (ValueError, OverflowError, OSError):
        return None


_FRACTIONS = tuple(f".{ms:03}".rstrip("0").rstrip(".") + "+00:00" for ms in range(1000))


def parse_time(text: object) -> int | None:
    """Return the Unix ms of a time that `time_text` wrote; None: there is none, or only a damaged row can hold it."""
    if not isinstance(text, str):
        return None
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, TypeError):  # the latter if it has no offset
        return None


_EPOCH = datetime.fromtimestamp(0, UTC)
