"""A fleet's life as endpoint events of revision kaa-2017-04, for demonstrations and benchmarks.

Pure and seeded: the same fleet lives the same life, to the byte, on every machine.
The endpoints come up in a rush, some newcomers trickle in later, and then the mix stays steady for ever.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any, NamedTuple

_CONNECTED = "connectivity.connected"
_DISCONNECTED = "connectivity.disconnected"
_REGISTERED = "lifecycle.registered"
_APP_VERSION_UPDATED = "lifecycle.appversion-updated"
_METADATA_UPDATED = "metadata.updated"
_CONFIG_AVAILABLE = "config.new-available"
_CONFIG_APPLIED = "config.updated"

_ORIGINATORS = {
    _CONNECTED: "kpc",
    _DISCONNECTED: "kpc",
    _REGISTERED: "epr",
    _APP_VERSION_UPDATED: "epr",
    _METADATA_UPDATED: "epr",
    _CONFIG_AVAILABLE: "ecr",
    _CONFIG_APPLIED: "cmx",
}

# What an endpoint's session holds: no replica, one of the four, or one that does not say which it is.
_OFFLINE = 0
_REPLICAS = 4
_ANONYMOUS = 5
_REPLICA_IDS = ("", "kpc-0", "kpc-1", "kpc-2", "kpc-3", "")

_PRODUCTS = ("kettle", "meter")
_RELEASES = tuple(f"{major}.{minor}.0" for major in range(1, 9) for minor in range(10))
_FIRST_RELEASES = 3
_METADATA_KEYS = ("serial", "model", "fw", "site", "owner", "room", "tariff", "contact")
_FIRST_KEYS = 5
_LASTING_KEYS = 2
_CONFIGS = 255  # numbered from 1 in a byte, 0 being none

# Every fifth block of four neighbours sits behind one gateway, whose single client connects and drops them all.
_BLOCK = 4
_GATEWAY_EVERY = 5

_CREW_SHARE = 0.9  # of the fleet comes up at the start, the rest are newcomers
_JOIN_CHANCE = 0.5
_NEWCOMER_CHANCE = 0.04
_ANONYMOUS_CHANCE = 0.01
_ANONYMOUS_EVERY = 97  # messages, of the originators that hold no sessions
_REMOVAL_CHANCE = 0.25

# What a visit brings, as upper bounds of one throw; above the last, the session opens or closes.
# The figures give about 30 % connects, 25 % disconnects, 15 % metadata, 12 % announcements, 10 % confirmations,
# 4 % upgrades.
_METADATA_BELOW = 0.165
_UPGRADE_BELOW = 0.21
_ANNOUNCE_OFFLINE_BELOW = 0.31
_CONFIGURE_ONLINE_BELOW = 0.57
_MOVE_ONLINE_BELOW = 0.63

_SLOW_REPLICA = "kpc-3"
_SLOW_BY_MS = 250
_SLOW_SPELL = 2_000  # events of every so many, after which the clock is set right
_SLOW_EVERY = 10_000

_UUID_BITS = 128
_SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835  # odd, so that multiples of it repeat only after 2 ** 128


class SimulatedEvent(NamedTuple):
    """An event, ready for `Codec.encode`."""

    event_type: str
    """What follows `endpoint.` in the subject."""
    originator: str
    record: dict[str, Any]
    """Wire record of revision kaa-2017-04; what it leaves out takes its default."""


class Fleet:
    """A simulated fleet whose whole life follows from its seed."""

    def __init__(self, *, endpoints: int, seed: int, start_at: int, interval_ms: float) -> None:
        """Describe a fleet of at least one endpoint.

        `start_at` is the Unix ms of the first event, `interval_ms` the simulated time between two events.
        """
        self._endpoints = endpoints
        self._seed = seed
        self._start_at = start_at
        self._interval_ms = interval_ms

    def events(self, *, skip: int = 0) -> Iterator[SimulatedEvent]:
        """Begin the life anew, and return its endless events but for the first `skip`."""
        random = Random(self._seed)  # noqa: S311  # a life that can be repeated is the point, and nothing is secret
        endpoint_key = random.getrandbits(_UUID_BITS)
        trace_key = random.getrandbits(_UUID_BITS)
        facts = _Lives(self._endpoints, random).facts()
        for number, fact in enumerate(islice(facts, skip, None), skip):
            event_type, endpoints, replica, own_fields = fact
            originator = _ORIGINATORS[event_type]
            timestamp = self._start_at + int(number * self._interval_ms)
            if replica == _SLOW_REPLICA and number % _SLOW_EVERY < _SLOW_SPELL:
                timestamp -= _SLOW_BY_MS
            if replica is None and number % _ANONYMOUS_EVERY:
                replica = f"{originator}-{endpoints[0] % 2}"
            record = {
                "correlationId": _uuid(trace_key, number),
                "timestamp": timestamp,
                **own_fields,
                "originatorReplicaId": replica,
            }
            if event_type == _DISCONNECTED:
                record["endpointIds"] = [_uuid(endpoint_key, endpoint) for endpoint in endpoints]
            else:
                record["endpointId"] = _uuid(endpoint_key, endpoints[0])
            yield SimulatedEvent(event_type, originator, record)


class _Fact(NamedTuple):
    """An event before it is dressed as a record, which is all that skipping costs."""

    event_type: str
    endpoints: tuple[int, ...]
    replica: str | None
    """Replica id of the session, empty where unknown; None where the event is not about one."""
    own_fields: dict[str, Any]


class _Lives:
    """What is true of every endpoint, a byte for each thing, endpoints being numbered in order of registration."""

    __slots__ = (
        "_announced",
        "_applied",
        "_configs",
        "_endpoints",
        "_keys",
        "_orphans",
        "_patience",
        "_random",
        "_registered",
        "_releases",
        "_sessions",
        "_turn",
    )

    def __init__(self, endpoints: int, random: Random) -> None:
        self._endpoints = endpoints
        self._random = random.random
        self._configs = ("", *(f"{random.getrandbits(_UUID_BITS):032x}" for _ in range(_CONFIGS)))
        self._registered = 0
        self._sessions = bytearray(endpoints)
        self._releases = bytearray(endpoints)
        self._keys = bytearray(endpoints)  # a bit for each of _METADATA_KEYS
        self._announced = bytearray(endpoints)
        self._applied = bytearray(endpoints)
        # Sessions that were left without a word, and the turn in which their replica will notice.
        self._orphans: deque[tuple[int, int, int]] = deque()
        self._patience = 2 + endpoints // 10
        self._turn = 0

    def facts(self) -> Iterator[_Fact]:
        """Live for ever."""
        yield from self._bring_up()
        while True:
            self._turn += 1
            notice = self._notice_orphan()
            if notice is not None:
                yield notice
            elif self._registered < self._endpoints and self._random() < _NEWCOMER_CHANCE:
                yield self._register()
            else:
                yield self._visit(int(self._random() * self._registered))

    def _bring_up(self) -> Iterator[_Fact]:
        crew = max(1, int(self._endpoints * _CREW_SHARE))
        queue = crew // 8  # endpoints are registered well before they are switched on
        joined = 0
        while self._registered < crew:
            if self._registered - joined > queue and self._random() < _JOIN_CHANCE:
                yield self._connect(joined)
                joined += 1
            else:
                yield self._register()

    def _visit(self, endpoint: int) -> _Fact:
        throw = self._random()
        if throw < _METADATA_BELOW:
            return self._change_metadata(endpoint)
        if throw < _UPGRADE_BELOW:
            return self._upgrade(endpoint)
        if self._sessions[endpoint] == _OFFLINE:
            return self._announce(endpoint) if throw < _ANNOUNCE_OFFLINE_BELOW else self._connect(endpoint)
        if throw < _CONFIGURE_ONLINE_BELOW:
            pending = self._announced[endpoint] != self._applied[endpoint]
            return self._apply(endpoint) if pending else self._announce(endpoint)
        return self._connect(endpoint) if throw < _MOVE_ONLINE_BELOW else self._disconnect(endpoint)

    def _register(self) -> _Fact:
        endpoint = self._registered
        self._registered += 1
        self._releases[endpoint] = int(self._random() * _FIRST_RELEASES)
        return self._fact(_REGISTERED, endpoint)

    def _connect(self, endpoint: int) -> _Fact:
        """Open a session, and leave the one that may still be open."""
        held = self._sessions[endpoint]
        gateway = _gateway(endpoint)
        if gateway is not None:
            replica = 1 + gateway % _REPLICAS
        elif held != _OFFLINE:
            replica = 1 + (held + int(self._random() * (_REPLICAS - 1))) % _REPLICAS
        elif self._random() < _ANONYMOUS_CHANCE:
            replica = _ANONYMOUS
        else:
            replica = 1 + int(self._random() * _REPLICAS)
        self._abandon_session(endpoint)
        self._sessions[endpoint] = replica
        return self._fact(_CONNECTED, endpoint, _REPLICA_IDS[replica])

    def _disconnect(self, endpoint: int) -> _Fact:
        replica = self._sessions[endpoint]
        dropped: tuple[int, ...] = (endpoint,)
        if _gateway(endpoint) is not None:
            first = endpoint - endpoint % _BLOCK
            neighbours = self._sessions[first : first + _BLOCK]
            dropped = tuple(other for other, held in enumerate(neighbours, first) if held == replica)
        for other in dropped:
            self._sessions[other] = _OFFLINE
        return _Fact(_DISCONNECTED, dropped, _REPLICA_IDS[replica], {})

    def _abandon_session(self, endpoint: int) -> None:
        replica = self._sessions[endpoint]
        # A replica that does not say which it is cannot be fenced: its late word would end the next session.
        if replica not in (_OFFLINE, _ANONYMOUS):
            self._orphans.append((self._turn + self._patience, endpoint, replica))
        self._sessions[endpoint] = _OFFLINE

    def _notice_orphan(self) -> _Fact | None:
        while self._orphans and self._orphans[0][0] <= self._turn:
            _, endpoint, replica = self._orphans.popleft()
            # Where the endpoint came back to the same replica, the new session has replaced the old one.
            if self._sessions[endpoint] not in (replica, _ANONYMOUS):
                return _Fact(_DISCONNECTED, (endpoint,), _REPLICA_IDS[replica], {})
        return None

    def _upgrade(self, endpoint: int) -> _Fact:
        """Change the release, for which the endpoint restarts."""
        previous = self._app_version(endpoint)
        self._releases[endpoint] = (self._releases[endpoint] + 1) % len(_RELEASES)
        self._abandon_session(endpoint)
        return self._fact(_APP_VERSION_UPDATED, endpoint, previousAppVersionName=previous)

    def _change_metadata(self, endpoint: int) -> _Fact:
        changes: dict[str, list[str]] = {"removed": [], "added": [], "updated": []}
        present = self._keys[endpoint]
        key = int(self._random() * len(_METADATA_KEYS))
        if not present:
            self._keys[endpoint] = (1 << _FIRST_KEYS) - 1
            changes["added"].extend(_METADATA_KEYS[:_FIRST_KEYS])
        elif present & 1 << key and (key < _LASTING_KEYS or self._random() > _REMOVAL_CHANCE):
            changes["updated"].append(_METADATA_KEYS[key])
        else:
            self._keys[endpoint] = present ^ 1 << key
            changes["removed" if present & 1 << key else "added"].append(_METADATA_KEYS[key])
        return self._fact(_METADATA_UPDATED, endpoint, **changes)

    def _announce(self, endpoint: int) -> _Fact:
        config = 1 + int(self._random() * _CONFIGS)
        self._announced[endpoint] = config
        return self._fact(_CONFIG_AVAILABLE, endpoint, configId=self._configs[config])

    def _apply(self, endpoint: int) -> _Fact:
        config = self._announced[endpoint]
        self._applied[endpoint] = config
        return self._fact(_CONFIG_APPLIED, endpoint, configId=self._configs[config])

    def _fact(self, event_type: str, endpoint: int, replica: str | None = None, /, **own_fields: Any) -> _Fact:
        own_fields["appVersionName"] = self._app_version(endpoint)
        return _Fact(event_type, (endpoint,), replica, own_fields)

    def _app_version(self, endpoint: int) -> str:
        return f"{_PRODUCTS[endpoint % len(_PRODUCTS)]}-{_RELEASES[self._releases[endpoint]]}"


def _gateway(endpoint: int) -> int | None:
    """Return the number of the gateway that an endpoint sits behind, if it does."""
    turn, place = divmod(endpoint // _BLOCK, _GATEWAY_EVERY)
    return turn if place == _GATEWAY_EVERY - 1 else None


def _uuid(key: int, number: int) -> str:
    """Return a string in the shape of a UUID, another one for each number."""
    digits = f"{(key + number * _SPREAD) % 2**_UUID_BITS:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
