"""Growing pauses between attempts, so that a server that is down is not flooded."""

from collections.abc import Iterator
from random import uniform

_FACTOR = 2.0


def growing_pauses_s(*, first_s: float, longest_s: float, jitter_s: float) -> Iterator[float]:
    """Yield pauses without end; each but the longest has a random part, so that daemons do not retry in step."""
    pause_s = first_s
    while True:
        yield min(pause_s + uniform(0, jitter_s), longest_s)  # noqa: S311 - not a secret
        pause_s = min(pause_s * _FACTOR, longest_s)
