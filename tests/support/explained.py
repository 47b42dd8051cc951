"""Events of one endpoint, what folding them does, and the rows of its log."""

from collections import defaultdict
from typing import Any

from projector.domain.endpoint import FACETS, Change, Endpoint, fold
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
from projector.domain.explanation import Logged, attributed, shown_by, why_rejected
from projector.domain.facets import Verdict
from tests.support.strategies import stamp

T1, T2 = "1970-01-01T00:00:00.1+00:00", "1970-01-01T00:00:00.2+00:00"
"""100 and 200 ms of Unix time, as sentences have them."""


def changes_of(*events: Event) -> tuple[dict[str, Endpoint], list[Change]]:
    endpoints: dict[str, Endpoint] = defaultdict(Endpoint.unseen)
    changes: list[Change] = []
    fold(events, endpoints, changes)
    return dict(endpoints), changes


def reasons_of(changes: list[Change]) -> list[tuple[str, str]]:
    """Return the facet and the sentence of each rejection."""
    return [
        (
            FACETS[change.facet].name,
            why_rejected(FACETS[change.facet], change.verdict, (type(change.event),), change.event, change.before),
        )
        for change in changes
        if change.verdict is not Verdict.APPLIED
    ]


def columns_of(endpoint: Endpoint) -> dict[str, tuple[Any, Any]]:
    return dict(attributed(endpoint.states, shown_by(endpoint)))


def connected(position: int, at: int, replica: str | None = "x", version: str = "") -> Event:
    return Connected(stamp(position, at, replica), ("e",), version)


def disconnected(position: int, at: int, replica: str | None = "x") -> Event:
    return Disconnected(stamp(position, at, replica), ("e",))


def registered(position: int, at: int, replica: str | None = "x", version: str = "") -> Event:
    return Registered(stamp(position, at, replica), ("e",), version)


def unregistered(position: int, at: int, replica: str | None = "x") -> Event:
    return Unregistered(stamp(position, at, replica), ("e",))


def updated(position: int, at: int, version: str = "v2", replica: str | None = "x") -> Event:
    return AppVersionUpdated(stamp(position, at, replica), ("e",), version, "v1")


def metadata(position: int, at: int, replica: str, *keys: str, removed: tuple[str, ...] = ()) -> Event:
    return MetadataUpdated(stamp(position, at, replica), ("e",), dict.fromkeys(keys), removed)


def announced(position: int, at: int, replica: str = "x", config_id: str = "c1") -> Event:
    return ConfigAvailable(stamp(position, at, replica), ("e",), config_id)


def applied(position: int, at: int, replica: str = "x", config_id: str = "c1") -> Event:
    return ConfigApplied(stamp(position, at, replica), ("e",), config_id)


def failed(position: int, at: int, replica: str = "x", config_id: str = "c1") -> Event:
    return ConfigFailed(stamp(position, at, replica), ("e",), config_id, 500, None)


def read_from_log(text: str) -> str:
    """Return an equal text that is another object, as the database returns it."""
    return "".join(list(text))


def logged(**fields: Any) -> Logged:
    empty: dict[str, Any] = dict.fromkeys(Logged._fields)
    given = {"commit_no": 1, "committed_at": 100, "facet": "application", "previous_event_seq": 1}
    return Logged(**empty | given | fields)
