"""Dates and times that Postgres has and Python has not: beyond the year 9999, before Christ, and infinite."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T", date, datetime)

_CYCLE_DAYS = 146_097
_CYCLE_YEARS = 400
"""After so many years the calendar is the same again."""
_DAY_US = 86_400_000_000
_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - that of a timestamp without a time zone
_INFINITE = {
    "date": {2**31 - 1: "infinity", -(2**31): "-infinity"},
    "timestamp": {2**63 - 1: "infinity", -(2**63): "-infinity"},
}


async def set_time_codecs(connection: Any) -> None:
    """Have a connection read what Python can hold as such, and anything else as the text that Postgres writes."""
    for name, decoder in (
        ("date", _decode_date),
        ("timestamp", _decoder_from(_EPOCH)),
        ("timestamptz", _decoder_from(_EPOCH.replace(tzinfo=UTC))),
    ):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=_refuse, decoder=decoder, format="tuple")


def _decode_date(value: tuple[int]) -> date | str:
    (days,) = value
    return _INFINITE["date"].get(days) or _in_its_year(_EPOCH.date(), timedelta(), days)


def _decoder_from(epoch: datetime) -> Callable[[tuple[int]], datetime | str]:
    def decode(value: tuple[int]) -> datetime | str:
        (microseconds,) = value
        days, rest = divmod(microseconds, _DAY_US)
        return _INFINITE["timestamp"].get(microseconds) or _in_its_year(epoch, timedelta(microseconds=rest), days)

    return decode


def _in_its_year(epoch: T, time: timedelta, days: int) -> T | str:
    try:
        return epoch + timedelta(days=days) + time
    except OverflowError:
        cycles, days = divmod(days, _CYCLE_DAYS)
        like = epoch + timedelta(days=days) + time
        year = like.year + _CYCLE_YEARS * cycles
        text = f"{year if year > 0 else 1 - year:04}{str(like)[4:]}"
        return text if year > 0 else f"{text} BC"


def _refuse(value: object) -> Any:
    raise TypeError(f"{value!r} is only read")
