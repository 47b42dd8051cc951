from collections.abc import Callable

import pytest

from projector.errors import PoisonError, PoisonReason
from projector.stream.limits import checked_endpoint_id, checked_text, checked_token


def parked(check: Callable[[], str]) -> tuple[PoisonReason, str]:
    with pytest.raises(PoisonError) as caught:
        check()
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize("text", ["a", "\x01", "\x7f", "\ud7ff", "\ue000", "\U0010ffff"])
def test_a_token_may_hold_any_character_but_a_nul(text: str) -> None:
    assert checked_token(f"kpc{text}", "token") == f"kpc{text}"


@pytest.mark.parametrize("half", [0xD800, 0xDBFF, 0xDC80, 0xDFFF], ids=hex)
def test_a_token_with_half_of_a_surrogate_pair_came_from_bytes_that_are_not_utf_8(half: int) -> None:
    token = f"kpc{chr(half)}"
    assert parked(lambda: checked_token(token, "the token")) == (
        "unstorable-text",
        f"the token is not UTF-8: {token!r}",
    )


def test_an_endpoint_id_may_have_a_thousand_characters() -> None:
    assert checked_endpoint_id("e" * 1000) == "e" * 1000


LONG = "0123456789" * 400


@pytest.mark.parametrize(
    ("check", "detail"),
    [
        (lambda: checked_text(f"{LONG}\0", "the text"), "the text has a NUL character"),
        (lambda: checked_token(f"{LONG}\udcff", "the token"), "the token is not UTF-8"),
        (lambda: checked_endpoint_id(LONG), "an endpoint id has 4000 bytes, an index holds 2692"),
    ],
    ids=["nul", "not-utf-8", "too-long"],
)
def test_of_a_text_that_is_parked_the_first_80_characters_are_shown(check: Callable[[], str], detail: str) -> None:
    _, shown = parked(check)
    assert shown.startswith(detail)
    assert shown.rstrip("…").endswith(f": {LONG[:80]!r}")
