"""The events of a simulated fleet, for demonstrations and benchmarks.

Pure and seeded: the same fleet produces the same bytes on every machine.
Most endpoints start at once, the rest join over time, and from then on the mix of events is constant.
"""

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any, NamedTuple

from projector.dev.records import RECORDS

DEFAULT_REVISION = "kaa-2017-04"

_ORIGINATORS = {"connectivity": "kpc", "lifecycle": "epr", "metadata": "epr"}
_CONFIG_ORIGINATORS = {"config-announced": "ecr", "config-applied": "cmx", "config-failed": "cmx"}

_ANONYMOUS_EVERY = 97  # messages of the originators that hold no sessions

_SLOW_REPLICA = "kpc-3"
_SLOW_BY_MS = 250
_SLOW_SPELL = 2_000  # events, after which the clock is corrected
_SLOW_EVERY = 10_000

_UUID_BITS = 128
_SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835  # odd, so that multiples of it repeat only after 2 ** 128


class SimulatedEvent(NamedTuple):
    """An event, ready for `Codec.encode`."""

    event_type: str
    """What follows `endpoint.` in the subject."""
    originator: str
    record: dict[str, Any]
    """Wire record of the revision; missing fields take their defaults."""


class Fleet:
    """A simulated fleet whose events depend only on its seed and the protocol revision."""

    def __init__(
        self, *, endpoints: int, seed: int, start_at: int, interval_ms: float, revision: str = DEFAULT_REVISION
    ) -> None:
        """Configure a fleet of at least one endpoint.

        `start_at` is the Unix ms of the first event, `interval_ms` the simulated time between two events.
        """
        self._endpoints = endpoints
        self._seed = seed
        self._start_at = start_at
        self._interval_ms = interval_ms
        self._records = RECORDS[revision]

    def events(self, *, skip: int = 0) -> Iterator[SimulatedEvent]:
        """Restart the simulation, and yield its events after the first `skip`, without end."""
        random = Random(self._seed)  # noqa: S311  # a life that can be repeated is the point, and nothing is secret
        endpoint_key = random.getrandbits(_UUID_BITS)
        trace_key = random.getrandbits(_UUID_BITS)
        facts = self._records.lives(self._endpoints, random).facts()
        for number, fact in enumerate(islice(facts, skip, None), skip):
            event_type, own_fields = self._records.types[fact.kind]
            originator = _CONFIG_ORIGINATORS.get(fact.kind) or _ORIGINATORS[event_type.partition(".")[0]]
            timestamp = self._start_at + int(number * self._interval_ms)
            replica = fact.replica
            if replica == _SLOW_REPLICA and number % _SLOW_EVERY < _SLOW_SPELL:
                timestamp -= _SLOW_BY_MS
            if replica is None and number % _ANONYMOUS_EVERY:
                replica = f"{originator}-{fact.endpoints[0] % 2}"
            if replica is None and event_type not in self._records.nullable_replica:
                replica = ""
            record = {
                "correlationId": _uuid(trace_key, number),
                "timestamp": timestamp,
                **own_fields(fact, [_uuid(endpoint_key, endpoint) for endpoint in fact.endpoints]),
                "originatorReplicaId": replica,
            }
            yield SimulatedEvent(event_type, originator, record)


def _uuid(key: int, number: int) -> str:
    """Return a string in the form of a UUID, unique for each number."""
    digits = f"{(key + number * _SPREAD) % 2**_UUID_BITS:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
