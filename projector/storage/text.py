"""Escapes text that Postgres cannot store."""

import re

_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2}))")


def storable(text: str) -> str:
    r"""Return a text for display, with what Postgres cannot store written as escapes (`\x00`, `\xff`)."""
    if "\0" not in text and text.isprintable():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", r"\x00")


def escape(text: str) -> str:
    r"""Return a text that Postgres can store and `unescape` reverses: as `storable`, with backslashes doubled."""
    return storable(text.replace("\\", "\\\\"))


def unescape(text: str) -> str:
    """Reverse `escape`."""
    raw = _ESCAPE.sub(lambda match: "\\" if match[1] is None else chr(0xDC00 + int(match[1], 16)), text)
    return raw.replace("\udc00", "\0")
