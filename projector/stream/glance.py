"""Reads the endpoint id of a payload, and nothing else of it.

The fields before it are strings and integers in every revision; Avro writes both with variable-length integers.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

Preceding: TypeAlias = tuple[bool, ...]
"""The fields before the endpoint id: True for a string, False for an integer."""

_ENDPOINT_ID = "endpointId"
_IS_STRING = {"string": True, "int": False, "long": False}
_CONTINUES = 0x80  # another byte of the integer follows


def preceding(fields: Sequence[Any]) -> Preceding | None:
    """Return the fields before the endpoint id of a schema; None if it has none, or if other types precede it."""
    before: list[bool] = []
    for field in fields:
        if field["name"] == _ENDPOINT_ID:
            return tuple(before)
        if not isinstance(field["type"], str) or field["type"] not in _IS_STRING:
            return None
        before.append(_IS_STRING[field["type"]])
    return None


def endpoint_id(payload: bytes, before: Preceding) -> bytes | None:
    """Return the endpoint id; None if it takes more than a glance, as in a payload that is cut off."""
    end = 0
    try:
        for is_string in (*before, True):
            integer = payload[end]
            end += 1
            if not is_string:
                while integer & _CONTINUES:
                    integer = payload[end]
                    end += 1
                continue
            if integer & _CONTINUES:
                integer = integer ^ _CONTINUES | payload[end] << 7
                end += 1
            # Zigzag: the length, doubled; texts of more than 8191 bytes are left to the decoder.
            if integer & 1 or integer >> 14:
                return None
            begin, end = end, end + (integer >> 1)
    except IndexError:
        return None
    return payload[begin:end] if end <= len(payload) else None
