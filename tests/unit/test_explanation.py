"""The event behind each column, and the sentence for each rejection."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given

from projector.domain.attribution import Cause, Trail
from projector.domain.connectivity import Connectivity, why_not_disconnected
from projector.domain.endpoint import FACETS, Endpoint
from projector.domain.events import (
    AppVersionUpdated,
    Connected,
    Disconnected,
    Event,
    Unregistered,
)
from projector.domain.explanation import (
    UNSEEN,
    attributed,
    recalled,
    shown_by,
    undone,
    why_logged,
)
from projector.domain.facets import Verdict
from tests.support.explained import (
    T1,
    T2,
    announced,
    applied,
    changes_of,
    columns_of,
    connected,
    disconnected,
    failed,
    logged,
    metadata,
    read_from_log,
    reasons_of,
    registered,
    unregistered,
    updated,
)
from tests.support.strategies import histories, stamp

# Sentences.

REJECTIONS = [
    pytest.param(
        [connected(1, 100), disconnected(2, 200, "y")],
        "connectivity",
        f"fenced: the session is held by kpc/x since {T1} (position 1)",
        id="fenced",
    ),
    pytest.param(
        [connected(1, 200), connected(2, 100, "y")],
        "connectivity",
        f"late: a connect from kpc/x at {T2} (position 1) is newer",
        id="older-than-the-connect-held",
    ),
    pytest.param(
        [connected(1, 200), disconnected(2, 100, None)],
        "connectivity",
        f"late: it is older than the connect from kpc/x at {T2} (position 1) that opened the session",
        id="disconnect-older-than-the-connect",
    ),
    pytest.param(
        [connected(1, 50), disconnected(2, 200), disconnected(3, 100, None)],
        "connectivity",
        f"late: a disconnect from kpc/x at {T2} (position 2) is newer",
        id="disconnect-of-a-session-that-has-ended",
    ),
    pytest.param(
        [disconnected(1, 200, None), disconnected(2, 100, "x")],
        "connectivity",
        f"late: a disconnect from kpc (replica unknown) at {T2} (position 1) is newer",
        id="disconnect-without-a-connect",
    ),
    pytest.param(
        [unregistered(1, 200), connected(2, 100, "y")],
        "connectivity",
        f"late: it belongs to the life that ended with the unregistration from kpc/x at {T2} (position 1)",
        id="its-life-has-ended",
    ),
    pytest.param(
        [unregistered(1, 50), connected(2, 200), connected(3, 100, "y")],
        "connectivity",
        f"late: a connect from kpc/x at {T2} (position 2) is newer",
        id="older-than-the-connect-held-in-the-same-life",
    ),
    pytest.param(
        [unregistered(1, 200), unregistered(2, 100, "y")],
        "metadata",
        f"late: an unregistration from kpc/x at {T2} (position 1) is newer",
        id="older-than-the-unregistration-held",
    ),
    pytest.param(
        [updated(1, 200), connected(2, 100, "y", "v1")],
        "application",
        f"late: a newer event named the version, from kpc/x at {T2} (position 1)",
        id="older-than-the-version-held",
    ),
    pytest.param(
        [updated(1, 200), updated(2, 100, replica="y")],
        "application",
        f"late: a newer event named the version, from kpc/x at {T2} (position 1)",
        id="update-older-than-the-version-held",
    ),
    pytest.param(
        [updated(1, 200), updated(2, 100, "", replica="y")],
        "application",
        f"late: an update from kpc/x at {T2} (position 1) is newer",
        id="update-without-a-version",
    ),
    pytest.param(
        [registered(1, 200), registered(2, 100, "y")],
        "registration",
        f"late: a registration from kpc/x at {T2} (position 1) is newer",
        id="older-than-the-registration-held",
    ),
    pytest.param(
        [metadata(1, 100, "x", "a"), metadata(2, 200, "y", "b", removed=("c",)), metadata(3, 50, "z", "a", "c")],
        "metadata",
        f"late: every key it names was changed by a newer event: 'a' was set from kpc/x at {T1} (position 1); "
        f"'c' was removed from kpc/y at {T2} (position 2)",
        id="older-than-each-key",
    ),
    pytest.param(
        [metadata(1, 100, "x", *"abc"), metadata(2, 50, "y", *"abc")],
        "metadata",
        "late: every key it names was changed by a newer event: "
        + "; ".join(f"'{key}' was set from kpc/x at {T1} (position 1)" for key in "abc"),
        id="older-than-as-many-keys-as-are-told",
    ),
    pytest.param(
        [metadata(1, 100, "x", *"abcde"), metadata(2, 50, "y", *"abcde")],
        "metadata",
        "late: every key it names was changed by a newer event: "
        + "".join(f"'{key}' was set from kpc/x at {T1} (position 1); " for key in "abc")
        + "and 2 more",
        id="older-than-many-keys",
    ),
    pytest.param(
        [metadata(1, 200, "x", "a"), metadata(2, 100, "y")],
        "metadata",
        f"late: a metadata event from kpc/x at {T2} (position 1) is newer",
        id="names-no-key",
    ),
    pytest.param(
        [announced(1, 200), announced(2, 100, "y")],
        "configuration",
        f"late: an announcement from kpc/x at {T2} (position 1) is newer",
        id="older-than-the-announcement-held",
    ),
    pytest.param(
        [applied(1, 200), applied(2, 100, "y")],
        "configuration",
        f"late: a confirmation from kpc/x at {T2} (position 1) is newer",
        id="older-than-the-confirmation-held",
    ),
    pytest.param(
        [failed(1, 200), failed(2, 100, "y")],
        "configuration",
        f"late: a failure from kpc/x at {T2} (position 1) is newer",
        id="older-than-the-failure-held",
    ),
]


@pytest.mark.parametrize(("events", "facet", "sentence"), REJECTIONS)
def test_a_rejection_names_the_event_that_it_gives_way_to(events: list[Event], facet: str, sentence: str) -> None:
    _, changes = changes_of(*events)
    assert (facet, sentence) in reasons_of(changes)


@given(histories())
def test_every_rejection_has_a_reason_that_the_state_tells(events: list[Event]) -> None:
    _, changes = changes_of(*events)
    for _, sentence in reasons_of(changes):
        assert "a newer event had decided" not in sentence
        assert "another replica held" not in sentence


def test_a_disconnect_held_from_an_earlier_session_is_not_a_reason() -> None:
    state = Connectivity(connected=stamp(2, 100, "x"), disconnected=stamp(1, 500, "y"))
    assert why_not_disconnected(state, Disconnected(stamp(3, 200, "x"), ("e",))) is None


@pytest.mark.parametrize(
    ("before", "after", "done"),
    [
        (None, {"app_version": "v1"}, "added the row"),
        ({"app_version": "v1"}, None, "removed the row"),
        ({"app_version": "v1", "metadata": {}}, {"app_version": "v2", "metadata": {}}, "changed app_version, metadata"),
        (None, None, "changed no visible column of the facet"),
    ],
)
def test_a_correction_says_what_it_changed(before: Any, after: Any, done: str) -> None:
    change = logged(verdict=read_from_log("corrected"), before=before, after=after)
    assert why_logged(change, UNSEEN, Trail(), ()) == f"corrected: a rebuild or a retry at {T1} {done}"


def test_a_rejection_whose_cause_the_log_does_not_have_says_so() -> None:
    late = logged(verdict="late", position=1, occurred_at=5, originator="kpc", event="connectivity.connected")
    assert why_logged(late, UNSEEN, Trail(), (Connected,)) == "late: a newer event had decided what it says"
    fenced = late._replace(verdict="fenced", facet="connectivity")
    assert why_logged(fenced, UNSEEN, Trail(), (Disconnected,)) == "fenced: another replica held the session"
    assert why_logged(late._replace(facet="of a later version"), UNSEEN, Trail(), ()) is None


def test_undoing_the_first_change_of_a_row_leaves_the_facet_unset() -> None:
    first = logged(after={"app_version": "v1"}, previous_event_seq=0)
    assert undone({**UNSEEN, "app_version": "v1", "last_event_seq": 3}, first) == {**UNSEEN, "last_event_at": None}


def test_a_row_is_recalled_with_the_update_behind_its_previous_version() -> None:
    endpoint = changes_of(updated(1, 100))[0]["e"]
    trail = Trail()
    trail.add("application", Cause(stamp(1, 100), (AppVersionUpdated,)))
    assert recalled({**shown_by(endpoint), "last_event_seq": 1}, trail) == endpoint.states


@given(histories())
def test_the_states_recalled_from_a_row_and_all_of_its_events_imply_every_column(events: list[Event]) -> None:
    endpoints, changes = changes_of(*events)
    for endpoint_id, endpoint in endpoints.items():
        trail = Trail()
        for change in changes:
            if change.endpoint_id == endpoint_id and change.verdict is Verdict.APPLIED:
                trail.add(FACETS[change.facet].name, Cause(change.event.stamp, (type(change.event),)))
        shown = shown_by(endpoint)
        found, held = attributed(recalled(shown, trail), shown), columns_of(endpoint)
        assert not trail.missed
        for name, (_, cause) in held.items():
            if name == "previous_app_version" and shown["unregistered_at"]:  # no time leads to its event
                continue
            again = found[name][1]
            assert (again and again.stamp.occurred_at) == (cause and cause.stamp.occurred_at), name


# Columns.


@given(histories())
def test_the_event_behind_a_column_explains_its_value(events: list[Event]) -> None:
    """Alone or beside events of other types it gives the value; or without it or its type the value is another one."""
    events = [event for event in events if not isinstance(event, Unregistered)]  # what these drop has no event left
    endpoints, _ = changes_of(*events)
    for endpoint_id, endpoint in endpoints.items():
        for name, (value, cause) in columns_of(endpoint).items():
            if cause is None:
                assert value == UNSEEN[name]
                continue
            (event,) = (one for one in events if one.stamp.position == cause.stamp.position)
            assert endpoint_id in event.endpoint_ids
            assert isinstance(event, cause.kinds)
            if name == "metadata":  # each key has an event of its own
                continue
            others = [one for one in events if not isinstance(one, cause.kinds)]
            alone = (event,), [one for one in events if one is event or one in others]
            assert value in [shown_after(endpoint_id, *some)[name] for some in alone] or value not in (
                shown_after(endpoint_id, *(one for one in events if one is not event))[name],
                shown_after(endpoint_id, *others)[name],
            )


def shown_after(endpoint_id: str, *events: Event) -> Mapping[str, Any]:
    """Return the columns of an endpoint after some events."""
    return shown_by(changes_of(*events)[0].get(endpoint_id) or Endpoint.unseen())


def test_a_value_that_no_event_implies_has_no_event() -> None:
    endpoint = changes_of(connected(1, 100, version="v1"), metadata(2, 200, "x", "a"))[0]["e"]
    shown = shown_by(endpoint)
    tampered = attributed(endpoint.states, {**shown, "app_version": "wrong", "metadata": {"b": 1}})
    assert tampered["app_version"] == ("wrong", None)
    assert tampered["metadata"] == ({"b": 1}, None)
    assert tampered["app_version_changed_at"][1] is not None
