import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.stream.protocol import REVISIONS
from projector.stream.subjects import EventSubject, build, filters, parse

tokens = st.text(st.characters(exclude_characters=". *>\t\r\n"), min_size=1)


@settings(deadline=None)
@given(tokens, tokens, tokens)
def test_built_subject_parses_to_its_originator_and_type(originator: str, group: str, kind: str) -> None:
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
def test_any_text_parses_without_an_error(subject: str) -> None:
    parsed = parse(subject)
    assert parsed is None or subject.startswith(f"kaa.v1.events.{parsed.originator}.endpoint")


@pytest.mark.parametrize(
    ("rest", "group"), [("connectivity.connected", "connectivity"), ("a.b.c", "a"), ("alone", "alone"), ("", "")]
)
def test_group_is_the_first_token_of_the_type(rest: str, group: str) -> None:
    parsed = parse(f"kaa.v1.events.kpc.endpoint.{rest}")
    assert parsed is not None
    assert parsed.group == group


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


GROUPS = ("metadata", "config", "metadata")


def test_filters_select_each_group_of_each_originator_and_no_other_protocol() -> None:
    assert filters(("kpc", "epr"), GROUPS) == (
        "kaa.v1.events.epr.endpoint.config.>",
        "kaa.v1.events.epr.endpoint.metadata.>",
        "kaa.v1.events.kpc.endpoint.config.>",
        "kaa.v1.events.kpc.endpoint.metadata.>",
    )
    assert filters((), GROUPS) == ("kaa.v1.events.*.endpoint.config.>", "kaa.v1.events.*.endpoint.metadata.>")


@pytest.mark.parametrize(("version", "several"), [((2, 9, 25), False), ((2, 10, 0), True), ((3, 0, 0), True)])
def test_server_with_a_single_filter_gets_one_for_all_groups(version: tuple[int, ...], several: bool) -> None:
    assert (len(filters((), GROUPS, server_version=version)) > 1) is several
    if not several:
        assert filters((), GROUPS, server_version=version) == ("kaa.v1.events.*.endpoint.>",)
        assert filters(("kpc",), GROUPS, server_version=version) == ("kaa.v1.events.kpc.endpoint.>",)


def test_the_groups_of_a_revision_are_those_of_its_types() -> None:
    assert {name: revision.groups for name, revision in REVISIONS.items()} == dict.fromkeys(
        ("kaa-2017-04", "kaa-2020-05"), frozenset({"connectivity", "lifecycle", "metadata", "config"})
    )
