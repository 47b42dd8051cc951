"""Moments on the command line."""

import re
from datetime import UTC, datetime, timedelta

import typer

_AGO = re.compile(r"-(\d{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> datetime:
    """Return a moment in the past, from ISO 8601 (in UTC unless it has an offset) or as a time before now, such as -2h.

    Raises:
        typer.BadParameter: it is neither, or it is in the future.
    """
    now = datetime.now(UTC)
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        if found <= now:
            return found
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time in ISO 8601, such as 2026-11-24T02:00:00Z, nor one before now, such as -2h",
            param_hint="--at",
        ) from None
    raise typer.BadParameter(f"{text!r} is in the future", param_hint="--at")
