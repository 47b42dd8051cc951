"""How values are encoded for Postgres, and decoded, on the hot path.

Times stay integers of Unix ms, and JSON stays text or bytes: no `datetime` and no dictionary is built per row.
"""

from functools import partial

import msgspec

from projector.domain.endpoint import FACETS
from projector.storage.connection import Connection

_POSTGRES_EPOCH_MS = 946_684_800_000  # 2000-01-01
_JSONB_VERSION = b"\x01"

encode_json = msgspec.json.Encoder(order="deterministic").encode
decode_json = msgspec.json.decode
REGISTER_DECODERS = tuple(msgspec.json.Decoder(facet.state) for facet in FACETS)
"""Read the state of a facet from the JSON of its registers, in the order of `FACETS`."""


def encode_registers(state: object) -> str:
    """Return the JSON of a facet's registers; equal states give the same text."""
    return encode_json(state).decode()


def _encode_time(unix_ms: int) -> tuple[int]:
    return ((unix_ms - _POSTGRES_EPOCH_MS) * 1000,)


def _decode_time(postgres_us: tuple[int]) -> int:
    return postgres_us[0] // 1000 + _POSTGRES_EPOCH_MS


def _encode_jsonb(value: object) -> bytes:
    return _JSONB_VERSION + encode_json(value)


def _decode_jsonb(value: bytes) -> bytes:
    return value[1:]


async def set_codecs(connection: Connection) -> None:
    """Make `timestamptz` an integer of Unix ms; make `jsonb` encode any value and decode to its JSON bytes."""
    set_codec = partial(connection.set_type_codec, schema="pg_catalog")
    await set_codec("timestamptz", encoder=_encode_time, decoder=_decode_time, format="tuple")
    await set_codec("jsonb", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary")
