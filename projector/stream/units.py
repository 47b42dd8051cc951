"""Units of the JetStream API: durations are nanoseconds, and times become integer Unix milliseconds."""

from datetime import UTC, datetime, timedelta

NS_PER_S = 10**9
NS_PER_MS = 10**6
_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)


def unix_ms(time: datetime) -> int:
    """Return a time in Unix ms, rounded down."""
    return (time - _EPOCH) // _MILLISECOND
