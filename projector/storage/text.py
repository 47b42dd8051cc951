"""Text as Postgres can hold it."""


def storable(text: str) -> str:
    r"""Return a text for a person to read, with what Postgres cannot hold written as escapes (`\x00`, `\xff`)."""
    if "\0" not in text and text.isprintable():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", r"\x00")
