"""Simulates a fleet, independently of the protocol revision."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal[
    "registered",
    "unregistered",
    "version-updated",
    "connected",
    "disconnected",
    "metadata-updated",
    "config-announced",
    "config-applied",
    "config-failed",
]

# Replica of an endpoint's session: none, one of the four, or one that does not name itself.
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
_CONFIGS = 255  # numbered from 1 in a byte; 0 is none
_UUID_BITS = 128

_CREW_SHARE = 0.9  # share of the fleet that starts at once; the rest join later
_JOIN_CHANCE = 0.5
_NEWCOMER_CHANCE = 0.04
_ANONYMOUS_CHANCE = 0.01
_REMOVAL_CHANCE = 0.25

# Outcomes of a visit, as upper bounds of one random number; above the last, the session opens or closes.
# The figures give about 30 % connects, 25 % disconnects, 15 % metadata, 12 % announcements, 10 % confirmations,
# 4 % upgrades.
_METADATA_BELOW = 0.165
_UPGRADE_BELOW = 0.21
_ANNOUNCE_OFFLINE_BELOW = 0.31
_CONFIGURE_ONLINE_BELOW = 0.57
_MOVE_ONLINE_BELOW = 0.63

_UNREGISTER_CHANCE = 0.01
_FAILURE_CHANCE = 0.2
_ABSENT_CHANCE = 0.05
# By metadata key, a JSON text from a number below 1: one of every JSON type, and one that is not JSON.
_VALUES: Mapping[str, Callable[[float], str | None]] = {
    "serial": lambda throw: f"9{int(throw * 10**18):018d}",  # beyond the precision of a float
    "model": lambda throw: f'"{_PRODUCTS[int(throw * len(_PRODUCTS))]} ☕"',
    "fw": lambda throw: f'{{"major": {int(throw * 9)}, "build": "b{int(throw * 1000)}"}}',
    "site": lambda throw: f"[{throw * 90:.6f}, {throw * 180:.6f}]",
    "owner": lambda _: None,
    "room": lambda throw: "true" if throw < _HALF else "false",
    "tariff": lambda throw: f"{throw * 10:.2f}",
    "contact": lambda throw: f"+380 {int(throw * 10**9):09d}",
}
_HALF = 0.5
_FAILURES = ((404, None), (409, "busy"), (500, "flash full"))


class Fact(NamedTuple):
    """An event before its conversion to a record, so that skipping events is cheap."""

    kind: Kind
    endpoints: tuple[int, ...]
    """Numbers of the endpoints, in order of registration."""
    versions: tuple[str, ...]
    """The application version of each endpoint."""
    replica: str | None
    """Replica id of the session, empty if unknown; None if the event is not about a session."""
    fields: dict[str, Any]
    """Other fields of the event."""


class Lives:
    """The state of every endpoint, one byte per property.

    Every fifth block of neighbours is behind one gateway, which disconnects them all at once.
    """

    _block = 4
    _gateway_every = 5

    def __init__(self, endpoints: int, random: Random) -> None:
        """Start with endpoints that have no events yet."""
        self._endpoints = endpoints
        self._random = random.random
        self._configs = ("", *(f"{random.getrandbits(_UUID_BITS):032x}" for _ in range(_CONFIGS)))
        self._registered = 0
        self._sessions = bytearray(endpoints)
        self._releases = bytearray(endpoints)
        self._keys = bytearray(endpoints)  # a bit for each of _METADATA_KEYS
        self._announced = bytearray(endpoints)
        self._applied = bytearray(endpoints)
        # Sessions that were abandoned silently, and the turn in which their replica will notice.
        self._orphans: deque[tuple[int, int, int]] = deque()
        self._patience = 2 + endpoints // 10
        self._turn = 0

    def facts(self) -> Iterator[Fact]:
        """Yield events endlessly."""
        yield from self._bring_up()
        while True:
            self._turn += 1
            notice = self._notice_orphan()
            if notice is not None:
                yield notice
            elif self._registered < self._endpoints and self._random() < _NEWCOMER_CHANCE:
                yield self._register_next()
            else:
                yield self._visit(int(self._random() * self._registered))

    def _bring_up(self) -> Iterator[Fact]:
        crew = max(1, int(self._endpoints * _CREW_SHARE))
        queue = crew // 8  # endpoints are registered long before they are switched on
        joined = 0
        while self._registered < crew:
            if self._registered - joined > queue and self._random() < _JOIN_CHANCE:
                yield self._connect(joined)
                joined += 1
            else:
                yield self._register_next()

    def _visit(self, endpoint: int) -> Fact:
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

    def _register_next(self) -> Fact:
        self._registered += 1
        return self._register(self._registered - 1)

    def _register(self, endpoint: int) -> Fact:
        self._releases[endpoint] = int(self._random() * _FIRST_RELEASES)
        return self._fact("registered", endpoint)

    def _connect(self, endpoint: int) -> Fact:
        """Open a session, and abandon one that is still open."""
        held = self._sessions[endpoint]
        gateway = self._gateway(endpoint)
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
        return self._fact("connected", endpoint, replica=_REPLICA_IDS[replica])

    def _disconnect(self, endpoint: int) -> Fact:
        replica = self._sessions[endpoint]
        dropped = [endpoint]
        if self._gateway(endpoint) is not None:
            dropped = [other for other in self._neighbours(endpoint) if self._sessions[other] == replica]
        for other in dropped:
            self._sessions[other] = _OFFLINE
        return self._fact("disconnected", *dropped, replica=_REPLICA_IDS[replica])

    def _abandon_session(self, endpoint: int) -> None:
        replica = self._sessions[endpoint]
        # An unnamed replica cannot be fenced: its late disconnect would end the next session.
        if replica not in (_OFFLINE, _ANONYMOUS):
            self._orphans.append((self._turn + self._patience, endpoint, replica))
        self._sessions[endpoint] = _OFFLINE

    def _notice_orphan(self) -> Fact | None:
        while self._orphans and self._orphans[0][0] <= self._turn:
            _, endpoint, replica = self._orphans.popleft()
            # If the endpoint returned to the same replica, the new session has replaced the old one.
            if self._sessions[endpoint] not in (replica, _ANONYMOUS):
                return self._fact("disconnected", endpoint, replica=_REPLICA_IDS[replica])
        return None

    def _upgrade(self, endpoint: int) -> Fact:
        """Upgrade the release, which restarts the endpoint."""
        previous = self._app_version(endpoint)
        self._releases[endpoint] = (self._releases[endpoint] + 1) % len(_RELEASES)
        self._abandon_session(endpoint)
        return self._fact("version-updated", endpoint, previous=previous)

    def _change_metadata(self, endpoint: int) -> Fact:
        changes: dict[str, Any] = {"removed": [], "added": [], "updated": []}
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
        return self._fact("metadata-updated", endpoint, **changes)

    def _announce(self, endpoint: int) -> Fact:
        config = 1 + int(self._random() * _CONFIGS)
        self._announced[endpoint] = config
        return self._fact("config-announced", endpoint, config_id=self._configs[config])

    def _apply(self, endpoint: int) -> Fact:
        config = self._announced[endpoint]
        self._applied[endpoint] = config
        return self._fact("config-applied", endpoint, config_id=self._configs[config])

    def _fact(self, kind: Kind, *endpoints: int, replica: str | None = None, **fields: Any) -> Fact:
        return Fact(kind, endpoints, tuple(map(self._app_version, endpoints)), replica, fields)

    def _app_version(self, endpoint: int) -> str:
        return f"{_PRODUCTS[endpoint % len(_PRODUCTS)]}-{_RELEASES[self._releases[endpoint]]}"

    def _gateway(self, endpoint: int) -> int | None:
        """Return the number of the endpoint's gateway, if it has one."""
        turn, place = divmod(endpoint // self._block, self._gateway_every)
        return turn if place == self._gateway_every - 1 else None

    def _neighbours(self, endpoint: int) -> range:
        """Return the registered endpoints behind the same gateway."""
        first = endpoint - endpoint % self._block
        return range(first, min(first + self._block, self._registered))


class TodaysLives(Lives):
    """Adds unregistrations, values of metadata, failed and removed configurations, and connects of whole gateways."""

    _block = 20

    def __init__(self, endpoints: int, random: Random) -> None:
        """Start with endpoints that have no events yet."""
        super().__init__(endpoints, random)
        self._gone = bytearray(endpoints)

    def _visit(self, endpoint: int) -> Fact:
        if self._gone[endpoint]:
            self._gone[endpoint] = False
            return self._register(endpoint)
        if self._random() < _UNREGISTER_CHANCE:
            return self._unregister(endpoint)
        return super()._visit(endpoint)

    def _unregister(self, endpoint: int) -> Fact:
        """Unregister an endpoint; the replica of an open session notices later."""
        self._gone[endpoint] = True
        self._abandon_session(endpoint)
        self._keys[endpoint] = self._announced[endpoint] = self._applied[endpoint] = 0
        return self._fact("unregistered", endpoint)

    def _connect(self, endpoint: int) -> Fact:
        opened = super()._connect(endpoint)
        if self._gateway(endpoint) is None:
            return opened
        others = [
            other
            for other in self._neighbours(endpoint)
            if self._sessions[other] == _OFFLINE and not self._gone[other] and other != endpoint
        ]
        for other in others:
            self._sessions[other] = self._sessions[endpoint]
        return self._fact("connected", endpoint, *others, replica=opened.replica)

    def _announce(self, endpoint: int) -> Fact:
        if self._announced[endpoint] and self._random() < _ABSENT_CHANCE:
            self._announced[endpoint] = 0
            return self._fact("config-announced", endpoint, config_id="")
        return super()._announce(endpoint)

    def _apply(self, endpoint: int) -> Fact:
        """Apply the pending configuration, or fail: then it stays pending, and the endpoint retries later."""
        if self._random() >= _FAILURE_CHANCE:
            return super()._apply(endpoint)
        code, reason = _FAILURES[int(self._random() * len(_FAILURES))]
        config_id = self._configs[self._announced[endpoint]]
        return self._fact("config-failed", endpoint, config_id=config_id, code=code, reason=reason)

    def _change_metadata(self, endpoint: int) -> Fact:
        changed = super()._change_metadata(endpoint)
        values = {key: _VALUES[key](self._random()) for key in (*changed.fields["added"], *changed.fields["updated"])}
        return changed._replace(fields={**changed.fields, "values": values})
