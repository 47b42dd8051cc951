import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.domain.endpoint import FACETS
from projector.domain.events import Event
from projector.domain.metadata import Key, Metadata
from projector.storage.wire import REGISTER_DECODERS, encode_registers, set_codecs
from tests.support.strategies import folded, histories, stamp

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Codecs:
    """Accepts codecs like a connection, and keeps them by type name."""

    def __init__(self) -> None:
        self._options: dict[str, dict[str, Any]] = {}
        connection: Any = self
        asyncio.run(set_codecs(connection))

    async def set_type_codec(self, name: str, **options: Any) -> None:
        self._options[name] = options

    @property
    def formats(self) -> dict[str, str]:
        return {f"{options['schema']}.{name}": options["format"] for name, options in self._options.items()}

    def encode(self, name: str, value: Any) -> Any:
        return self._options[name]["encoder"](value)

    def decode(self, name: str, value: Any) -> Any:
        return self._options[name]["decoder"](value)


CODECS = Codecs()


@given(histories())
def test_registers_of_any_state_decode_to_what_was_encoded(history: list[Event]) -> None:
    assert len(REGISTER_DECODERS) == len(FACETS)
    for endpoint in folded(history).values():
        for decoder, state in zip(REGISTER_DECODERS, endpoint.states, strict=True):
            assert decoder.decode(encode_registers(state)) == state


def test_equal_states_have_equal_register_texts_for_any_key_order() -> None:
    one, other = Key(present=True, value="1.50", stamp=stamp(1, 1)), Key(False, None, stamp(2, 2))
    assert encode_registers(Metadata({"k": one, "j": other}, None)) == encode_registers(
        Metadata({"j": other, "k": one}, None)
    )


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_sent_in_microseconds_since_2000_and_read_back_in_unix_milliseconds(time: datetime) -> None:
    whole = time - timedelta(microseconds=time.microsecond % 1000)
    unix_ms = (time - UNIX_EPOCH) // timedelta(milliseconds=1)
    assert CODECS.encode("timestamptz", unix_ms) == ((whole - POSTGRES_EPOCH) // timedelta(microseconds=1),)
    assert CODECS.decode("timestamptz", ((time - POSTGRES_EPOCH) // timedelta(microseconds=1),)) == unix_ms


def test_times_are_transferred_as_integers_and_jsonb_as_bytes() -> None:
    assert CODECS.formats == {"pg_catalog.timestamptz": "tuple", "pg_catalog.jsonb": "binary"}


@pytest.mark.parametrize("value", [None, 0, "", "text", [1, None], {"deep": {"er": True}}])
def test_jsonb_is_sent_with_its_version_and_read_back_as_its_text(value: Any) -> None:
    sent = CODECS.encode("jsonb", value)
    assert sent[:1] == b"\x01"
    assert json.loads(sent[1:]) == value
    assert CODECS.decode("jsonb", sent) == sent[1:]
