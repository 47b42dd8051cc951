"""Commands for messages that could not be folded."""

import json
from collections.abc import Awaitable, Callable

import pytest

from tests.support.command_line import CommandLine
from tests.support.fixtures import Event, Publish, Query

CONNECTED = "connectivity.connected"


@pytest.fixture
async def parked(prepared: CommandLine, event: Event, publish: Publish, query: Query, database_url: str) -> CommandLine:
    """Four messages are parked: the first two by a user's constraint, which has been dropped since."""
    await query(database_url, "ALTER TABLE endpoint_state ADD CONSTRAINT nothing_old CHECK (app_version <> 'old')")
    await publish(
        event(CONNECTED, "kettle-1", appVersionName="old", timestamp=1_700_000_000_001),
        event(CONNECTED, "kettle-2", appVersionName="old", timestamp=1_700_000_000_002),
        (event(CONNECTED)[0], b"\xff\xfe"),
        event("config.updated", "", configId="c1"),
        event(CONNECTED, "lamp"),
        event(CONNECTED, "kettle-1", appVersionName="new", timestamp=1_700_000_000_009),
    )
    await prepared.fold()
    await query(database_url, "ALTER TABLE endpoint_state DROP CONSTRAINT nothing_old")
    return prepared


@pytest.fixture
def states(query: Query, database_url: str) -> Callable[[], Awaitable[list[tuple[object, ...]]]]:
    return lambda: query(database_url, "SELECT position, state, attempts, note FROM dead_letter ORDER BY position")


async def waiting(projector: CommandLine) -> dict[str, int]:
    """Parked dead letters by reason, as `status` shows them."""
    counts: dict[str, int] = json.loads(await projector.succeeds("status", "--json"))["dead_letters_by_reason"]
    return counts


async def test_dead_letter_is_shown_with_reason_fields_and_bytes(parked: CommandLine) -> None:
    whole = await parked.succeeds("dead-letters", "show", "1")
    for text in ("kaa.v1.events.kpc.endpoint.connectivity.connected", "database-rejected", "nothing_old", "kettle-1"):
        assert text in whole
    broken = await parked.succeeds("dead-letters", "show", "3")
    assert "malformed-payload" in broken
    assert "fffe" in broken.replace(" ", "")
    missing = await parked("dead-letters", "show", "5")
    assert (missing.code, "no dead letter at position 5" in missing.err) == (3, True)


async def test_retried_message_keeps_its_position(
    parked: CommandLine, query: Query, database_url: str, states: Callable[[], Awaitable[list[tuple[object, ...]]]]
) -> None:
    assert await waiting(parked) == {"database-rejected": 2, "malformed-payload": 1, "empty-endpoint-id": 1}
    assert await parked.succeeds("dead-letters", "retry", "1") == "1 resolved\n"
    assert await parked.succeeds("dead-letters", "retry", "--reason", "database-rejected") == "2 resolved\n"
    assert await query(
        database_url, "SELECT endpoint_id, app_version, last_event_seq FROM endpoint_state ORDER BY endpoint_id"
    ) == [("kettle-1", "new", 6), ("kettle-2", "old", 2), ("lamp", None, 5)]
    assert await states() == [
        (1, "resolved", 2, None),
        (2, "resolved", 2, None),
        (3, "parked", 1, None),
        (4, "parked", 1, None),
    ]
    await parked.succeeds("verify")


async def test_retry_parks_unfoldable_messages_again(
    parked: CommandLine, states: Callable[[], Awaitable[list[tuple[object, ...]]]]
) -> None:
    retried = await parked("dead-letters", "retry", "--all")
    assert retried.code == 1
    assert [" ".join(line.split()[:4]).removesuffix(":") for line in retried.out.splitlines()] == [
        "1 resolved",
        "2 resolved",
        "3 parked again: malformed-payload",
        "4 parked again: empty-endpoint-id",
    ]
    assert [row[1:3] for row in await states()] == [("resolved", 2), ("resolved", 2), ("parked", 2), ("parked", 2)]


async def test_discarded_dead_letter_keeps_its_reason_and_is_closed(
    parked: CommandLine, states: Callable[[], Awaitable[list[tuple[object, ...]]]]
) -> None:
    assert (await parked("dead-letters", "discard", "3")).code == 2
    assert (await parked("dead-letters", "discard", "--reason", "test")).code == 2
    assert await parked.succeeds("dead-letters", "discard", "3", "--reason", "a test of ours") == "1 discarded\n"
    assert (await states())[2] == (3, "discarded", 1, "a test of ours")
    assert "malformed-payload" not in await waiting(parked)
    assert "a test of ours" in await parked.succeeds("dead-letters", "show", "3")
    assert (await parked("dead-letters", "retry", "3")).code == 3
    assert (await states())[2] == (3, "discarded", 1, "a test of ours")


async def test_impossible_position_is_a_usage_error(prepared: CommandLine) -> None:
    last, beyond = str(2**63 - 1), str(2**63)
    for command in ("show", "retry", "discard --reason test"):
        for position, code in ((last, 3), (beyond, 2), ("0", 2)):
            refused = await prepared("dead-letters", *command.split(), position)
            assert refused.code == code, refused
            assert "unexpected" not in refused.err
    assert (await prepared("wait", "--timeout", "0", "--seq", last)).code == 1
    assert (await prepared("wait", "--timeout", "0", "--seq", beyond)).code == 2
    assert (await prepared("verify", "--sample", beyond)).code == 2


async def test_missing_dead_letter_is_named_and_nothing_changes(
    parked: CommandLine, states: Callable[[], Awaitable[list[tuple[object, ...]]]]
) -> None:
    before = await states()
    for command in (("retry", "1", "5"), ("discard", "1", "5", "--reason", "test")):
        refused = await parked("dead-letters", *command)
        assert (refused.code, refused.out) == (3, "")
        assert "no dead letter at position 5" in refused.err
    assert await parked.succeeds("dead-letters", "retry", "--reason", "trailing-bytes") == "no dead letters\n"
    assert await states() == before
    unknown = await parked("verify", "--endpoint", "nobody")
    assert "no replayed message names endpoint nobody" in unknown.out


async def test_unknown_reason_is_a_usage_error(prepared: CommandLine) -> None:
    refused = await prepared("dead-letters", "retry", "--reason", "malformed")
    assert refused.code == 2
    assert "malformed-payload" in refused.err


async def test_dead_letters_of_another_stream_are_refused_instead_of_reported_as_none(parked: CommandLine) -> None:
    for command in ("list", "show 1", "retry --all", "discard --all --reason test"):
        refused = await parked("dead-letters", *command.split(), PROJECTOR_STREAM="OTHER")
        assert (refused.code, refused.out) == (3, "")
        assert "built from stream 'KAA_ENDPOINT_EVENTS'" in refused.err
