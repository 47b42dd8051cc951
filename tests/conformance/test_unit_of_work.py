"""The port UnitOfWork, in a transaction of the daemon's store."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

import pytest

from projector.app.ports import Store, UnitOfWork
from projector.domain.checkpoint import Checkpoint
from projector.errors import (
    CheckpointMovedError,
    DatabaseUnavailableError,
    PoisonError,
    ProjectorError,
    RowsChangedError,
    RulesChangedError,
)
from tests.conformance.databases import DatabaseUnderTest
from tests.conformance.states import (
    EVERY_FACET,
    RULES,
    START,
    after,
    announced,
    checkpoint,
    connected,
    facts,
    letter,
    logged,
)

Step: TypeAlias = Callable[[UnitOfWork], Awaitable[object]]


async def transact(store: Store, *steps: Step) -> None:
    async with store.transaction() as work:
        for step in steps:
            await step(work)


@pytest.fixture
async def store(database: DatabaseUnderTest) -> Store:
    """A store whose checkpoint is at position 5."""
    store = await database.open_store()
    await store.begin(checkpoint(5))
    return store


async def test_checkpoint_is_held_and_advanced_by_its_current_value(store: Store) -> None:
    before = checkpoint(5)
    after = checkpoint(2**53 + 1)
    await transact(store, lambda work: work.hold(before), lambda work: work.advance(before, after))
    assert await store.checkpoint() == after


async def test_advancing_takes_over_the_creation_time_of_the_stream(store: Store) -> None:
    adopted = replace(checkpoint(5), stream_created_at=1_800_000_000_000)
    await transact(store, lambda work: work.hold(checkpoint(5)), lambda work: work.advance(checkpoint(5), adopted))
    assert await store.checkpoint() == adopted


async def test_advance_keeps_rules_and_generation(store: Store) -> None:
    before = checkpoint(5)
    after = replace(checkpoint(6, generation=3), rules=replace(RULES, revision="other"))
    await transact(store, lambda work: work.advance(before, after))
    assert await store.checkpoint() == checkpoint(6)


@pytest.mark.parametrize(
    "believed",
    [checkpoint(4), checkpoint(6), replace(checkpoint(5), stream="OTHER")],
    ids=["moved on", "behind", "other stream"],
)
async def test_stale_checkpoint_is_neither_held_nor_advanced(store: Store, believed: Checkpoint) -> None:
    with pytest.raises(CheckpointMovedError) as refused:
        await transact(store, lambda work: work.hold(believed))
    assert (refused.value.expected, refused.value.found) == (believed.position, 5)
    with pytest.raises(CheckpointMovedError):
        await transact(store, lambda work: work.advance(believed, replace(believed, position=9)))
    assert await store.checkpoint() == checkpoint(5)


async def test_missing_checkpoint_cannot_be_held(database: DatabaseUnderTest) -> None:
    store = await database.open_store()
    with pytest.raises(CheckpointMovedError):
        await transact(store, lambda work: work.hold(START))


async def test_rows_of_other_rules_are_not_held(store: Store) -> None:
    now = replace(checkpoint(5), rules=replace(RULES, revision="kaa-2031-01"))
    with pytest.raises(RulesChangedError):
        await transact(store, lambda work: work.hold(now))


async def test_hold_refuses_rows_that_a_retry_changed(database: DatabaseUnderTest, store: Store) -> None:
    retry = await database.open_retry()
    await transact(store, lambda work: work.park("S", [letter(3)]))
    async with retry.transaction() as work:
        await work.hold(checkpoint(2))
        await work.advance(checkpoint(2), checkpoint(3))
    with pytest.raises(RowsChangedError) as changed:
        await transact(store, lambda work: work.hold(checkpoint(5)))
    assert changed.value.generation == 1
    await transact(
        store,
        lambda work: work.hold(checkpoint(5, generation=1)),
        lambda work: work.advance(checkpoint(5, generation=1), checkpoint(6)),
    )
    assert await store.checkpoint() == checkpoint(6, generation=1)


@pytest.mark.parametrize("commits", [True, False])
async def test_hold_waits_until_the_holding_transaction_ends(
    database: DatabaseUnderTest, store: Store, *, commits: bool
) -> None:
    other = await database.open_store()
    held, decided = asyncio.Event(), asyncio.Event()

    async def hold(work: UnitOfWork) -> None:
        await work.hold(checkpoint(5))
        held.set()

    async def decide(work: UnitOfWork) -> None:
        await decided.wait()
        await work.advance(checkpoint(5), checkpoint(6))

    holding = asyncio.create_task(transact(store, hold, decide))
    await held.wait()
    waiting = asyncio.create_task(transact(other, lambda work: work.hold(checkpoint(5))))
    for _ in range(10):
        await store.load({"e": EVERY_FACET}, {})  # the other transaction reaches the lock meanwhile
    assert not waiting.done()
    if commits:
        decided.set()
        await holding
        with pytest.raises(CheckpointMovedError) as refused:
            await waiting
        assert refused.value.found == 6
    else:
        holding.cancel()
        await waiting
        assert await store.checkpoint() == checkpoint(5)


async def test_saving_changes_the_facets_that_changed_and_the_latest_event(store: Store) -> None:
    first, second = after(connected(1)), after(announced(2))
    await transact(store, lambda work: work.save({"e": first}))
    await transact(store, lambda work: work.save({"e": second}))
    async with store.transaction() as work:
        loaded = (await work.load({"e": EVERY_FACET}))["e"]
    assert facts(loaded) == facts(after(connected(1), announced(2)))


async def test_an_endpoint_that_only_a_late_event_named_gets_a_row(database: DatabaseUnderTest, store: Store) -> None:
    unchanged = after()
    unchanged.last_event_seq, unchanged.last_event_at = 4, START.stream_created_at
    await transact(store, lambda work: work.save({"e": unchanged}))
    assert await database.endpoints() == {"e": 4}


async def test_parking_a_message_again_counts_the_attempt(database: DatabaseUnderTest, store: Store) -> None:
    await transact(store, lambda work: work.park("S", [letter(1), letter(2)]))
    await transact(store, lambda work: work.park("S", [letter(2, detail="still bad")]))
    assert await database.dead_letters() == [(1, "parked", 1), (2, "parked", 2)]


async def test_parking_keeps_a_dead_letter_discarded_unless_another_message_is_at_its_position(
    database: DatabaseUnderTest, store: Store
) -> None:
    await transact(store, lambda work: work.park("S", [letter(1), letter(2)]))
    await database.discard(1)
    await database.discard(2)
    await transact(store, lambda work: work.park("S", [letter(1), letter(2, stored_at=START.stream_created_at)]))
    assert await database.dead_letters() == [(1, "discarded", 2), (2, "parked", 2)]


async def test_logged_changes_are_kept_by_the_commit(database: DatabaseUnderTest, store: Store) -> None:
    changes, messages = logged(connected(6))
    await transact(
        store,
        lambda work: work.hold(checkpoint(5)),
        lambda work: work.log(changes, messages),
        lambda work: work.advance(checkpoint(5), checkpoint(6)),
    )
    assert await database.logged_positions("e") == [6, 6]


async def test_error_rolls_back_rows_changes_dead_letters_and_checkpoint(
    database: DatabaseUnderTest, store: Store
) -> None:
    changes, messages = logged(connected(6))

    async def fail(_: UnitOfWork) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await transact(
            store,
            lambda work: work.hold(checkpoint(5)),
            lambda work: work.save({"e": after(connected(6))}),
            lambda work: work.log(changes, messages),
            lambda work: work.park("S", [letter(6)]),
            lambda work: work.advance(checkpoint(5), checkpoint(6)),
            fail,
        )
    assert (await database.endpoints(), await database.dead_letters()) == ({}, [])
    assert await database.logged_positions("e") == []
    assert await store.checkpoint() == checkpoint(5)
    await transact(store, lambda work: work.hold(checkpoint(5)))


async def test_rejected_row_is_poison_and_rolls_back_the_transaction(database: DatabaseUnderTest, store: Store) -> None:
    await database.refuse("bad")
    with pytest.raises(PoisonError, match="database-rejected"):
        await transact(store, lambda work: work.save({"e": after(connected(1)), "bad": after(connected(1))}))
    assert await database.endpoints() == {}
    await transact(
        store,
        lambda work: work.check({"bad": EVERY_FACET, "e": EVERY_FACET}),
        lambda work: work.save({"e": after(connected(1))}),
    )
    assert await database.endpoints() == {"e": 1}


async def test_transaction_that_loses_its_connection_is_rolled_back(database: DatabaseUnderTest, store: Store) -> None:
    async def write_and_lose(work: UnitOfWork) -> None:
        await work.hold(checkpoint(5))
        await work.save({"e": after(connected(6))})
        await database.lose_connections()

    steps: list[Step] = [write_and_lose, lambda work: work.advance(checkpoint(5), checkpoint(6))]
    for some in (steps, steps[:1]):
        with pytest.raises(DatabaseUnavailableError):
            await transact(store, *some)
        await store.open()
        assert (await database.endpoints(), await store.checkpoint()) == ({}, checkpoint(5))


async def test_saves_of_one_transaction_commit_together(database: DatabaseUnderTest, store: Store) -> None:
    await transact(
        store,
        lambda work: work.save({"e": after(connected(1))}),
        lambda work: work.save({"e": after(announced(2)), "f": after(connected(1))}),
    )
    assert await database.endpoints() == {"e": 2, "f": 1}


async def test_store_works_after_a_caught_error(store: Store) -> None:
    for _ in range(3):
        with pytest.raises(ProjectorError):
            await transact(store, lambda work: work.hold(checkpoint(9)))
    await transact(store, lambda work: work.hold(checkpoint(5)))
