"""Checks whether Postgres can store the values of an event, before any SQL."""

from projector.errors import PoisonError

MAX_ENDPOINT_ID_BYTES = 2692
"""The longest text that a Postgres B-tree can index, regardless of its content.

An index tuple may take 2,704 bytes on a page of 8 kB; its header takes 8, the header of the text 4.
"""

_SURELY_SHORT_ENOUGH = MAX_ENDPOINT_ID_BYTES // 4  # in characters: UTF-8 takes at most 4 bytes for each


def checked_text(text: str, what: str) -> str:
    """Return a text of a decoded payload, which is valid UTF-8, if Postgres can store it.

    Raises:
        PoisonError: it has a NUL character.
    """
    if "\0" in text:
        raise PoisonError("unstorable-text", f"{what} has a NUL character, which Postgres cannot hold: {text[:80]!r}")
    return text


def checked_token(token: str, what: str) -> str:
    """Return a token of a subject, which may be any bytes, if Postgres can store it.

    Raises:
        PoisonError: it has a NUL character, or came from bytes that are not UTF-8.
    """
    if any("\ud800" <= character <= "\udfff" for character in token):
        raise PoisonError("unstorable-text", f"{what} is not UTF-8: {token[:80]!r}")
    return checked_text(token, what)


def checked_endpoint_id(endpoint_id: str) -> str:
    """Return an endpoint id if a row can have it.

    Raises:
        PoisonError: it is empty, too long to index, or not a text that Postgres can store.
    """
    if not endpoint_id:
        raise PoisonError("empty-endpoint-id", "an endpoint id is empty, so there is no row that the event is about")
    if len(endpoint_id) > _SURELY_SHORT_ENOUGH:
        size = len(endpoint_id.encode("utf-8", "surrogateescape"))
        if size > MAX_ENDPOINT_ID_BYTES:
            raise PoisonError(
                "endpoint-id-too-long",
                f"an endpoint id has {size} bytes, an index holds {MAX_ENDPOINT_ID_BYTES}: {endpoint_id[:80]!r}…",
            )
    return checked_text(endpoint_id, "endpointId")
