import json
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from projector.errors import PoisonError
from projector.stream.json_values import MAX_DEPTH, checked_json


def refused(text: str) -> PoisonError:
    with pytest.raises(PoisonError) as caught:
        checked_json("site", text)
    return caught.value


def test_null_is_json_null() -> None:
    assert checked_json("site", None) is None


@pytest.mark.parametrize("text", ["null", " null\n"])
def test_text_null_is_json_null(text: str) -> None:
    assert checked_json("site", text) is None


@pytest.mark.parametrize(
    "text",
    [
        "1.50",
        "0.1000000000000000055511151231257827021181583404541015625",
        "12345678901234567890123456789012345678901234567890",
        "-0",
        "1e5",
        "1E+131071",
        "12e131070",
        "0.0001e131075",
        "1e-16383",
        "1e0000000000000016",
        "0e9999999",
        "0." + "0" * 16_382 + "1",
        "1" * 131_072,
        "true",
        '""',
        '"Kyiv"',
        ' [1, {"b": [], "a": null}] ',
        '{"a": 1, "a": 2}',
        '"\\ud83d\\ude00 \\u00e9 \\\\ud800 \\\\u0000"',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH,
        "[" + "[1]," * 2_000 + "[]]",
        "[" * 511 + "[],[]" + "]" * 511,
        '["' + "[" * 2_000 + '\\"[{"]',
    ],
    ids=lambda text: text[:20],
)
def test_json_text_is_kept_unchanged(text: str) -> None:
    assert checked_json("site", text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Kyiv",
        "NaN",
        "-Infinity",
        "01",
        "1.",
        ".5",
        "+1",
        "0x10",
        "1 2",
        "[1,]",
        "{'a': 1}",
        "nul",
        '"open',
        '"a\nb"',
        "\ufeff1",
        "٣",
        '"\\x"',
        "[" * MAX_DEPTH,
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_text_that_is_not_json_becomes_a_string(text: str) -> None:
    value = checked_json("site", text)
    assert value is not None
    assert json.loads(value) == text


@pytest.mark.parametrize(
    "text",
    [
        "a\0b",
        '"\\u0000"',
        '{"\\u0000": 1}',
        '"\\ud800"',
        '"\\uDfFf"',
        '"\\ude00\\ud83d"',
        '"\\ud83d \\ude00"',
        '["\\\\\\u0000"]',
        '"\\ud83d\\ude00\\ude00"',
    ],
    ids=ascii,
)
def test_a_value_with_a_nul_or_half_of_a_surrogate_pair_is_refused(text: str) -> None:
    error = refused(text)
    assert error.reason == "unstorable-text"
    assert "metadata key 'site'" in error.detail
    assert error.detail.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "1e131072",
        "12e131071",
        "0.0001e131076",
        "-1e999999999999999999999999",
        "0e10000000",
        "1e-16384",
        "1.5e-16383",
        "1e-99999999999999999999",
        "0." + "0" * 16_383 + "1",
        "1" * 131_073,
        '[1, {"a": 1e200000}]',
    ],
    ids=lambda text: text[:20],
)
def test_a_number_that_postgres_cannot_hold_is_refused(text: str) -> None:
    error = refused(text)
    assert error.reason == "unstorable-json"
    assert "metadata key 'site'" in error.detail
    assert len(error.detail) < 300


@pytest.mark.parametrize("size", [MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"[":', "}]")])
def test_a_value_that_is_nested_too_deep_is_refused(opening: str, closing: str, size: int) -> None:
    assert refused(opening * size + "1" + closing * size).reason == "unstorable-json"


@pytest.mark.parametrize("text", ["[" * 513 + "]" * 513, "[[],[],[]," + "[" * 512 + "]" * 513])
def test_only_512_levels_are_allowed(text: str) -> None:
    assert "deeper than 512 levels" in refused(text).detail


def test_text_that_is_not_json_keeps_its_characters() -> None:
    assert checked_json("site", "Київ") == '"Київ"'


def test_a_detail_shows_80_characters_of_a_value() -> None:
    shown = "\0" + "a" * 79
    assert refused(shown).detail.endswith(repr(shown))
    assert refused(f"{shown}a").detail.endswith(repr(f"{shown}…"))


def nested(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False).map(float)
    | st.text(max_size=8),
    nested,
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None)
@given(json_values, st.booleans(), st.sampled_from([None, 1]))
@example("\0", True, None)
def test_any_json_value_is_kept_or_refused_for_a_nul(value: object, ensure_ascii: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    if "\\u0000" in text.replace("\\\\", ""):
        assert refused(text).reason == "unstorable-text"
    else:
        assert json.loads(checked_json("site", text) or "null") == value


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=30) | st.text('[]{}",:0123e+-.\\udtrue n', max_size=30))
def test_any_text_becomes_valid_json_or_is_refused(text: str) -> None:
    with suppress(PoisonError):
        json.loads(checked_json("site", text) or "null")
