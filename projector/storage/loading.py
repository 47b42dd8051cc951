"""Reads rows into working copies of endpoints."""

from collections.abc import Mapping
from typing import Any

from msgspec import DecodeError

from projector.domain.endpoint import FACETS, Endpoint, FacetSet, completed, missing
from projector.errors import DamagedRowError
from projector.storage.connection import Connection
from projector.storage.dialect import Dialect
from projector.storage.wire import REGISTER_DECODERS

_NONE: Mapping[str, Endpoint] = {}

_READERS = tuple(
    (index, 1 << index, decoder.decode, facet.initial)
    for index, (decoder, facet) in enumerate(zip(REGISTER_DECODERS, FACETS, strict=True))
)


async def load(
    connection: Connection,
    dialect: Dialect,
    table: str,
    needed: Mapping[str, FacetSet],
    uncommitted: Mapping[str, Endpoint] = _NONE,
) -> dict[str, Endpoint]:
    """Return working copies of endpoints with the facets needed, as if uncommitted ones were saved.

    An endpoint without a row is unseen.
    """
    lacking = missing(needed, uncommitted)
    endpoints: dict[str, Endpoint] = {}
    for query in await dialect.queries(connection, table, lacking):
        for row in await connection.fetch(*query):
            endpoints[row[0]] = read_row(lacking[row[0]], *row)
    for endpoint_id in lacking:
        if endpoint_id not in endpoints:
            endpoints[endpoint_id] = Endpoint.unseen()
    return completed(needed, uncommitted, endpoints)


def read_row(
    needed: FacetSet, endpoint_id: str, last_event_seq: int, last_event_at: int, *registers: str | None
) -> Endpoint:
    """Return an endpoint with the facets needed; raises DamagedRowError."""
    states: list[Any] = [None] * len(FACETS)
    for index, bit, decode, initial in _READERS:
        if needed & bit:
            value = registers[index]
            try:
                states[index] = initial if value is None else decode(value)
            except DecodeError as error:
                raise DamagedRowError(endpoint_id, FACETS[index].name, str(error)) from error
    return Endpoint(states, last_event_seq, last_event_at)
