"""Random events of a few endpoints, from two replicas whose clocks disagree, and messages that cannot be read."""

from random import Random
from typing import Any

from projector.stream import subjects
from tests.support.fixtures import Event, Wire

MALFORMED: Wire = (subjects.build("kpc", "connectivity.connected"), b"\xff" * 5000)
UNKNOWN: Wire = (subjects.build("kpc", "future.thing"), b"")

_KINDS: list[tuple[str, dict[str, Any]]] = [
    ("connectivity.connected", {"appVersionName": "v1"}),
    ("connectivity.disconnected", {}),
    ("lifecycle.registered", {"appVersionName": "v0"}),
    ("lifecycle.appversion-updated", {"appVersionName": "v2", "previousAppVersionName": "v1"}),
    ("metadata.updated", {"added": ["site"]}),
    ("metadata.updated", {"removed": ["site"], "added": ["room"]}),
    ("config.new-available", {"configId": "c1"}),
    ("config.updated", {"configId": "c1"}),
]
_UNREADABLE = 0.05


def life(event: Event, random: Random, count: int, *, endpoints: int) -> list[Wire]:
    """Build messages; the events among them are `count`."""
    wires: list[Wire] = []
    for _ in range(count):
        name, fields = random.choice(_KINDS)
        endpoint_id = f"e{random.randrange(endpoints)}"
        record = fields | {"timestamp": random.randrange(1, 50), "originatorReplicaId": random.choice("xy")}
        if name == "connectivity.disconnected":
            others = random.sample(range(endpoints), random.randrange(2))
            record["endpointIds"] = list(dict.fromkeys([endpoint_id, *(f"e{other}" for other in others)]))
        wires.append(event(name, endpoint_id, **record))
        if random.random() < _UNREADABLE:
            wires.append(random.choice((MALFORMED, UNKNOWN)))
    return wires
