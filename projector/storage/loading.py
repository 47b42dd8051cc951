"""Rows to working copies of endpoints."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from msgspec import ValidationError

from projector.domain.endpoint import FACETS, Endpoint, FacetSet
from projector.errors import DamagedRowError
from projector.storage import statements
from projector.storage.wire import REGISTER_DECODERS

_LOADED_AT_ONCE = 10_000  # endpoint ids in one parameter: a single event may name 100,000


async def load(connection: Any, table: str, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
    """Return a working copy of each endpoint, with the facets that are needed of it.

    An endpoint without a row is returned as one that no event has named yet.
    """
    by_facets: defaultdict[FacetSet, list[str]] = defaultdict(list)
    for endpoint_id, facets in needed.items():
        by_facets[facets].append(endpoint_id)
    endpoints: dict[str, Endpoint] = {}
    for facets, endpoint_ids in by_facets.items():
        plan = statements.for_facets(facets, table)
        decoders = tuple((index, REGISTER_DECODERS[index].decode, FACETS[index].initial) for index, _ in plan.facets)
        for start in range(0, len(endpoint_ids), _LOADED_AT_ONCE):
            rows = await connection.fetch(plan.load, endpoint_ids[start : start + _LOADED_AT_ONCE])
            for endpoint_id, last_event_seq, last_event_at, *registers in rows:
                states: list[Any] = [None] * len(FACETS)
                for (index, decode, initial), value in zip(decoders, registers, strict=True):
                    try:
                        states[index] = initial if value is None else decode(value)
                    except ValidationError as error:
                        raise DamagedRowError(endpoint_id, FACETS[index].name, str(error)) from error
                endpoints[endpoint_id] = Endpoint(states, last_event_seq, last_event_at)
    for endpoint_id in needed:
        if endpoint_id not in endpoints:
            endpoints[endpoint_id] = Endpoint.unseen()
    return endpoints
