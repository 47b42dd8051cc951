import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.stream.subjects import EventSubject, build, filters, parse

tokens = st.text(st.characters(exclude_characters=". *>\t\r\n"), min_size=1)


@settings(deadline=None)
@given(tokens, tokens, tokens)
def test_what_is_built_from_an_originator_and_a_type_parses_into_them(originator: str, group: str, kind: str) -> None:
    subject = build(originator, f"{group}.{kind}")
    assert subject.count(".") == 6
    assert parse(subject) == EventSubject(originator, f"{group}.{kind}")


@pytest.mark.parametrize("rest", ["connectivity", "connectivity.connected.again", "a.b.c.d"])
def test_fewer_or_more_tokens_than_a_group_and_a_type_are_a_type_of_their_own(rest: str) -> None:
    assert parse(f"kaa.v1.events.kpc.endpoint.{rest}") == EventSubject("kpc", rest)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "kaa",
        "kaa.v1.events.kpc",
        "kaa.v1.events.kpc.service.connectivity.connected",
        "kaa.v2.events.kpc.endpoint.connectivity.connected",
        "kaa.v1.event.kpc.endpoint.connectivity.connected",
        "KAA.v1.events.kpc.endpoint.connectivity.connected",
        "kaa.v1.events.endpoint.connectivity.connected",
        "kaa.v1.events.kpc.eu.endpoint.connectivity.connected",
        "prefix.kaa.v1.events.kpc.endpoint.connectivity.connected",
        ".kaa.v1.events.kpc.endpoint.connectivity.connected",
    ],
)
def test_another_subject_is_not_one_of_endpoint_events(subject: str) -> None:
    assert parse(subject) is None


@settings(deadline=None)
@given(st.text())
def test_any_text_parses_or_does_not(subject: str) -> None:
    parsed = parse(subject)
    assert parsed is None or subject.startswith(f"kaa.v1.events.{parsed.originator}.endpoint")


@pytest.mark.parametrize(
    ("originators", "expected"),
    [
        ((), ("kaa.v1.events.*.endpoint.>",)),
        (("kpc",), ("kaa.v1.events.kpc.endpoint.>",)),
        (("kpc", "epr", "kpc"), ("kaa.v1.events.epr.endpoint.>", "kaa.v1.events.kpc.endpoint.>")),
    ],
    ids=["all", "one", "some-and-one-twice"],
)
def test_filters_select_the_named_originators_once_each_or_all(
    originators: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert filters(originators) == expected
