"""Rows to working copies of endpoints."""

from collections.abc import Mapping
from typing import Any

from msgspec import DecodeError

from projector.domain.endpoint import FACETS, Endpoint, FacetSet, completed, missing
from projector.errors import DamagedRowError
from projector.storage import statements
from projector.storage.wire import REGISTER_DECODERS

_LOADED_AT_ONCE = 500  # endpoints in one query: others have their turn between two, and one event may name 100,000

_READERS = tuple(
    (index, 1 << index, decoder.decode, facet.initial)
    for index, (decoder, facet) in enumerate(zip(REGISTER_DECODERS, FACETS, strict=True))
)


async def load(connection: Any, table: str, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
    """Return a working copy of each endpoint, with the facets that are needed of it.

    An endpoint without a row is returned as one that no event has named yet.
    """
    query = statements.load(table)
    endpoint_ids, facet_sets = list(needed), list(needed.values())
    endpoints: dict[str, Endpoint] = {}
    for start in range(0, len(endpoint_ids), _LOADED_AT_ONCE):
        some = slice(start, start + _LOADED_AT_ONCE)
        for row in await connection.fetch(query, endpoint_ids[some], facet_sets[some]):
            endpoints[row[0]] = _read(needed[row[0]], *row)
    for endpoint_id in endpoint_ids:
        if endpoint_id not in endpoints:
            endpoints[endpoint_id] = Endpoint.unseen()
    return endpoints


async def load_over(
    connection: Any, table: str, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]
) -> dict[str, Endpoint]:
    """Return working copies of endpoints as they are once what is uncommitted is saved."""
    loaded = await load(connection, table, missing(needed, uncommitted))
    return completed(needed, uncommitted, loaded)


def _read(
    needed: FacetSet, endpoint_id: str, last_event_seq: int, last_event_at: int, *registers: str | None
) -> Endpoint:
    states: list[Any] = [None] * len(FACETS)
    for index, bit, decode, initial in _READERS:
        if needed & bit:
            value = registers[index]
            try:
                states[index] = initial if value is None else decode(value)
            except DecodeError as error:
                raise DamagedRowError(endpoint_id, FACETS[index].name, str(error)) from error
    return Endpoint(states, last_event_seq, last_event_at)
