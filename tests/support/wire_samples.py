"""A sample message of every type in every revision, and its events."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from projector.domain.events import (
    AppVersionUpdated,
    ConfigApplied,
    ConfigAvailable,
    ConfigFailed,
    Connected,
    Disconnected,
    Event,
    MetadataUpdated,
    Registered,
    Unregistered,
)
from projector.domain.messages import Message, Skipped
from projector.domain.stamps import Stamp
from projector.errors import PoisonError, PoisonReason
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.protocol import REVISIONS

SCHEMAS = Path(__file__).parents[2] / "schemas"
CODECS = {name: Codec(name, SCHEMAS) for name in REVISIONS}

POSITION, SENT_AT, STORED_AT = 7, 1_700_000_000_000, 1_700_000_000_500
STAMP = Stamp(POSITION, SENT_AT, "kpc", "x")
HEADER = {"correlationId": "trace", "timestamp": SENT_AT, "timeout": -1}

Record = dict[str, Any]

_ONE = {"endpointId": "e", "appVersionName": "v1"}

# By revision and type: the specific fields on the wire, and their events.
SAMPLES: dict[str, dict[str, tuple[Record, tuple[Event, ...]]]] = {
    "kaa-2017-04": {
        "connectivity.connected": (_ONE, (Connected(STAMP, ("e",), "v1"),)),
        "connectivity.disconnected": ({"endpointIds": ["e2", "e1"]}, (Disconnected(STAMP, ("e2", "e1")),)),
        "lifecycle.registered": (_ONE, (Registered(STAMP, ("e",), "v1"),)),
        "lifecycle.appversion-updated": (
            {"endpointId": "e", "appVersionName": "v2", "previousAppVersionName": "v1"},
            (AppVersionUpdated(STAMP, ("e",), "v2", "v1"),),
        ),
        "metadata.updated": (
            {**_ONE, "removed": ["fw"], "added": ["site"], "updated": ["serial"]},
            (MetadataUpdated(STAMP, ("e",), {"site": None, "serial": None}, ("fw",)),),
        ),
        "config.new-available": ({**_ONE, "configId": "c1"}, (ConfigAvailable(STAMP, ("e",), "c1"),)),
        "config.updated": ({**_ONE, "configId": "c1"}, (ConfigApplied(STAMP, ("e",), "c1"),)),
    },
    "kaa-2020-05": {
        "connectivity.connected": (
            {"endpoints": {"e2": "v1", "e1": "v2", "e3": "v1"}},
            (Connected(STAMP, ("e2", "e3"), "v1"), Connected(STAMP, ("e1",), "v2")),
        ),
        "connectivity.disconnected": ({"endpoints": {"e2": "", "e1": "v"}}, (Disconnected(STAMP, ("e2", "e1")),)),
        "lifecycle.registered": (_ONE, (Registered(STAMP, ("e",), "v1"),)),
        "lifecycle.unregistered": (_ONE, (Unregistered(STAMP, ("e",)),)),
        "lifecycle.appversion-updated": (
            {"endpointId": "e", "appVersionName": "v2", "previousAppVersionName": "v1"},
            (AppVersionUpdated(STAMP, ("e",), "v2", "v1"),),
        ),
        "metadata.updated": (
            {
                **_ONE,
                "removed": {"fw": "1"},
                "added": {"site": '"Kyiv"'},
                "updated": {"serial": {"newValue": "7.50", "oldValue": None}},
            },
            (MetadataUpdated(STAMP, ("e",), {"site": '"Kyiv"', "serial": "7.50"}, ("fw",)),),
        ),
        "config.updated": (
            {**_ONE, "configId": "c1", "contentType": "text/plain", "content": b"\0\xff"},
            (ConfigAvailable(STAMP, ("e",), "c1"),),
        ),
        "config.applied": (
            {**_ONE, "configId": "c1", "statusCode": 500, "reasonPhrase": "flash full"},
            (ConfigFailed(STAMP, ("e",), "c1", 500, "flash full"),),
        ),
    },
}


class Kind(NamedTuple):
    """A type of event in a revision."""

    revision: str
    type: str

    def __str__(self) -> str:
        return f"{self.revision}-{self.type}"

    @property
    def codec(self) -> Codec:
        """The codec of the revision."""
        return CODECS[self.revision]

    @property
    def events(self) -> tuple[Event, ...]:
        """The events of the sample."""
        return SAMPLES[self.revision][self.type][1]

    def record(self, **changes: Any) -> Record:
        """Return the record of the sample, with some fields changed."""
        return {**HEADER, **SAMPLES[self.revision][self.type][0], "originatorReplicaId": "x", **changes}

    def payload(self, **changes: Any) -> bytes:
        """Return the payload of the sample, with some fields changed."""
        return self.codec.encode(self.type, self.record(**changes))

    def message(self, payload: bytes, originator: str = "kpc") -> Message:
        """Return a message of this type."""
        return Message(POSITION, STORED_AT, subjects.build(originator, self.type), payload)

    def decode(self, **changes: Any) -> Sequence[Event]:
        """Return the events of the sample, with some fields changed."""
        events = self.codec.decode(self.message(self.payload(**changes)))
        assert not isinstance(events, Skipped)
        return events

    def decode_one(self, **changes: Any) -> Event:
        """Return the single event of the sample, with some fields changed."""
        (event,) = self.decode(**changes)
        return event

    def parked(self, **changes: Any) -> PoisonReason:
        """Return why the sample is parked, with some fields changed."""
        with pytest.raises(PoisonError) as caught:
            self.decode(**changes)
        return caught.value.reason


KINDS = [Kind(revision, event_type) for revision, samples in SAMPLES.items() for event_type in samples]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
