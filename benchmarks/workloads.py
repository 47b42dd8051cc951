"""What is published: the part that is folded beforehand, and the backlog that is measured."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, cycle, islice, repeat
from random import Random
from typing import NamedTuple

from projector.dev.fleet import DEFAULT_REVISION, Fleet, SimulatedEvent
from projector.errors import PoisonReason
from projector.stream import subjects

_START_AT = 1_700_000_000_000
_STEADY_AFTER = 20  # events per endpoint, after which the simulator's mix has long been steady
_APART_SHARE = 5
_MOST_APART = 20_000
_FOREIGN_BYTES = 2_000


class Wire(NamedTuple):
    """A message as it is published."""

    subject: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Events to fold beforehand, and events to measure; each can be consumed once, in this order."""

    name: str
    preload: Iterable[SimulatedEvent]
    backlog: Iterable[SimulatedEvent | Wire]
    changes_per_event: int = 1
    """Endpoints that each event of the backlog names, where that is what counts."""
    revision: str = DEFAULT_REVISION


def steady(  # noqa: PLR0913 - a size each
    name: str, *, endpoints: int, preload: int, backlog: int, later: int = 0, revision: str = DEFAULT_REVISION
) -> Workload:
    """Return the simulator's steady mix, from `later` events into it on.

    With a few events per endpoint as `preload`, nearly every endpoint has a row before the backlog.
    """
    fleet = Fleet(endpoints=endpoints, seed=1, start_at=_START_AT, interval_ms=1, revision=revision)
    life = fleet.events(skip=(_STEADY_AFTER - preload) * endpoints + later)
    return Workload(
        name=name,
        preload=islice(life, preload * endpoints),
        backlog=islice(_apart(life, min(endpoints // _APART_SHARE, _MOST_APART)), backlog),
        revision=revision,
    )


def disconnects(name: str, *, endpoints: int, per_event: int, changes: int) -> Workload:
    """Return endpoints that connect, then disconnects that name several of them each, round after round."""
    ids = [_endpoint_id(number) for number in range(endpoints)]
    return Workload(
        name=name,
        preload=(_event("connectivity.connected", 0, endpointId=endpoint_id) for endpoint_id in ids),
        backlog=(
            _event("connectivity.disconnected", number, endpointIds=group)
            for number, group in enumerate(_groups(ids, per_event, changes), 1)
        ),
        changes_per_event=per_event,
    )


def connects(name: str, *, endpoints: int, per_event: int, changes: int) -> Workload:
    """Return endpoints that register, then connects of today's revision that name several of them each."""
    ids = [_endpoint_id(number) for number in range(endpoints)]
    return Workload(
        name=name,
        preload=(_event("lifecycle.registered", 0, endpointId=endpoint_id, appVersionName="v1") for endpoint_id in ids),
        backlog=(
            _event("connectivity.connected", number, endpoints=dict.fromkeys(group, "v1"))
            for number, group in enumerate(_groups(ids, per_event, changes), 1)
        ),
        changes_per_event=per_event,
        revision="kaa-2020-05",
    )


def metadata(name: str, *, endpoints: int, keys: int, backlog: int) -> Workload:
    """Return endpoints that get their metadata keys, then changes of one key of one endpoint each."""
    names = [f"key-{number:03}" for number in range(keys)]
    turns = ((number, number % endpoints, names[number // endpoints % keys]) for number in count())
    return Workload(
        name=name,
        preload=(_metadata_event(0, endpoint, added=names) for endpoint in range(endpoints)),
        backlog=(_metadata_event(number, endpoint, updated=[key]) for number, endpoint, key in islice(turns, backlog)),
    )


def connects_of_new(endpoints: int) -> Iterator[SimulatedEvent]:
    """Yield a connect of each endpoint."""
    for number in range(endpoints):
        yield _event("connectivity.connected", number, endpointId=_endpoint_id(number))


def changes_at_random(endpoints: int, changes: int, *, seed: int) -> Iterator[SimulatedEvent]:
    """Yield connects, disconnects and changes of metadata, each of one endpoint at random.

    Events of a higher seed are later.
    """
    random = Random(seed)  # noqa: S311 - not a secret
    for number in range(seed * endpoints, seed * endpoints + changes):
        endpoint = random.randrange(endpoints)
        endpoint_id = _endpoint_id(endpoint)
        match number % 3:
            case 0:
                yield _event("connectivity.connected", number, endpointId=endpoint_id)
            case 1:
                yield _event("connectivity.disconnected", number, endpointIds=[endpoint_id])
            case _:
                yield _metadata_event(number, endpoint, updated=["location"])


def spoiled(workload: Workload, *, every: int) -> Workload:
    """Return a workload in which one message in `every` cannot be folded: each kind in turn."""
    kinds = cycle(UNFOLDABLE.values())
    sound = iter(workload.backlog)

    def mixed() -> Iterator[SimulatedEvent | Wire]:
        while part := list(islice(sound, every - 1)):
            yield from part
            yield next(kinds)

    return replace(workload, name=f"{workload.name}, spoiled", backlog=mixed())


def among_foreign(workload: Workload, *, every: int) -> Workload:
    """Return a workload in which all but one message in `every` are data points of the platform's time series."""
    foreign = [
        Wire(_FOREIGN_SUBJECT, payload)
        for payload in (number.to_bytes(4, "big") * (_FOREIGN_BYTES // 4) for number in range(1, every))
    ]

    def mixed() -> Iterator[SimulatedEvent | Wire]:
        for event in workload.backlog:
            yield from foreign
            yield event

    return replace(workload, name=f"{workload.name}, among foreign messages", backlog=mixed())


def _groups(ids: list[str], size: int, changes: int) -> Iterator[list[str]]:
    """Yield groups of the endpoints, round after round, until they name as many as are to change."""
    groups = [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]
    return islice(chain.from_iterable(repeat(groups)), changes // size)


def _apart(events: Iterable[SimulatedEvent], distance: int) -> Iterator[SimulatedEvent]:
    """Leave out what names an endpoint again within `distance` events: a batch of so many names each endpoint once.

    A fleet far larger than a batch behaves like that by itself, and folding repeats would be easier.
    """
    latest: dict[str, int] = {}
    number = 0
    for event in events:
        record = event.record
        endpoint_ids = record.get("endpoints") or record.get("endpointIds") or (record["endpointId"],)
        if all(latest.get(endpoint_id, -distance) <= number - distance for endpoint_id in endpoint_ids):
            latest.update(dict.fromkeys(endpoint_ids, number))
            number += 1
            yield event


def _metadata_event(number: int, endpoint: int, **keys: list[str]) -> SimulatedEvent:
    changes: dict[str, list[str]] = {"removed": [], "added": [], "updated": [], **keys}
    return _event("metadata.updated", number, endpointId=_endpoint_id(endpoint), **changes)


def _event(event_type: str, number: int, **own_fields: object) -> SimulatedEvent:
    record = {
        "correlationId": _endpoint_id(number),
        "timestamp": _START_AT + number,
        **own_fields,
        "originatorReplicaId": "kpc-0",
    }
    return SimulatedEvent(event_type, "kpc", record)


def _endpoint_id(number: int) -> str:
    digits = f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"  # spread, as real ids are
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _named(event_type: str, endpoint_id: str, **own_fields: str) -> SimulatedEvent:
    return _event(event_type, 0, endpointId=endpoint_id, appVersionName="v1", **own_fields)


def _connected(payload: bytes) -> Wire:
    return Wire(subjects.build("kpc", "connectivity.connected"), payload)


_FOREIGN_SUBJECT = subjects.build("dcx", "data-collection.data-points-received.temperature")

UNFOLDABLE: dict[PoisonReason, SimulatedEvent | Wire] = {
    "malformed-payload": _connected(b"\xff" * 50),
    "trailing-bytes": _connected(b"\0\0\x01\x02e\0\0" + b"\0"),
    "empty-endpoint-id": _named("lifecycle.registered", ""),
    "endpoint-id-too-long": _named("lifecycle.registered", "e" * 3_000),
    "unstorable-text": _named("lifecycle.registered", "e\0"),
}
"""A message for each reason that is found when decoding."""
