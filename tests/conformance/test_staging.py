"""The ports Staging and FinalTransaction."""

import asyncio
from collections.abc import Mapping

import pytest

from projector.app.ports import Rows, Staging, Store, Transactions
from projector.domain.differences import Differences
from projector.domain.endpoint import Endpoint
from projector.domain.trimmed import Trimmed
from projector.errors import DatabaseUnavailableError, PoisonError, RowsChangedError
from tests.conformance.databases import DatabaseUnderTest
from tests.conformance.states import (
    EVERY_FACET,
    START,
    T,
    after,
    announced,
    checkpoint,
    connected,
    facts,
    letter,
    logged,
)
from tests.support.fixtures import Eventually


@pytest.fixture
async def store(database: DatabaseUnderTest) -> Store:
    """A store whose checkpoint is at position 5."""
    store = await database.open_store()
    await store.begin(checkpoint(5))
    return store


@pytest.fixture
async def staging(database: DatabaseUnderTest, store: Store) -> Staging:
    del store  # exists beforehand
    return await database.open_staging()


async def save(rows: Rows, endpoints: Mapping[str, Endpoint]) -> None:
    async with rows.transaction() as work:
        await work.save(endpoints)


async def everything(rows: Rows, *endpoint_ids: str) -> list[object]:
    loaded = await rows.load(dict.fromkeys(endpoint_ids, EVERY_FACET), {})
    return [facts(loaded[endpoint_id]) for endpoint_id in endpoint_ids]


async def differences(staging: Staging, *, show: int = 9, endpoint_id: str | None = None) -> Differences:
    async with staging.finish() as final:
        await final.hold()
        return await final.differences(show=show, endpoint_id=endpoint_id)


async def test_new_staging_tables_are_empty_and_separate_from_the_live_ones(
    database: DatabaseUnderTest, store: Store, staging: Staging
) -> None:
    await save(store, {"e": after(connected(1))})
    assert await everything(staging, "e") == [facts(after())]
    async with staging.transaction() as work:
        await work.hold(checkpoint(1))
        await work.save({"f": after(connected(2))})
        await work.log(*logged(connected(2)))
        await work.park("S", [letter(2)])
        await work.advance(checkpoint(1), checkpoint(2))
    assert await everything(staging, "e", "f") == [facts(after()), facts(after(connected(2)))]
    assert (await database.endpoints(), await database.dead_letters()) == ({"e": 1}, [])
    assert await database.logged_positions("e") == []
    assert await store.checkpoint() == checkpoint(5)
    assert await staging.checkpoints() == [checkpoint(5)]


async def test_cleared_staging_tables_are_empty(staging: Staging) -> None:
    await save(staging, {"e": after(connected(1))})
    await staging.clear()
    assert await everything(staging, "e") == [facts(after())]


async def test_a_staging_table_is_seeded_with_what_the_live_one_knows_from_before_a_position(
    store: Store, staging: Staging
) -> None:
    await save(store, {"e": after(connected(1), announced(2)), "f": after(announced(3)), "g": after(connected(2))})
    await staging.seed(Trimmed(first=2))
    assert await everything(staging, "e", "f", "g") == [facts(after(connected(1))), facts(after()), facts(after())]


async def test_staging_table_rejects_the_same_rows_as_the_live_one(database: DatabaseUnderTest, store: Store) -> None:
    del store
    await database.refuse("bad")
    staging = await database.open_staging()
    with pytest.raises(PoisonError, match="database-rejected"):
        await save(staging, {"e": after(connected(1)), "bad": after(connected(1))})
    assert await everything(staging, "e") == [facts(after())]


async def test_rebuild_leads_unless_a_daemon_leads(store: Store, staging: Staging, eventually: Eventually) -> None:
    assert await store.lead()
    assert not await staging.lead()
    await store.close()
    await eventually(staging.lead)
    await store.open()
    assert not await store.lead()


async def test_parked_dead_letters_are_returned_with_their_times(
    database: DatabaseUnderTest, store: Store, staging: Staging
) -> None:
    async with store.transaction() as work:
        await work.park("S", [letter(1), letter(2)])
        await work.park("OTHER", [letter(3)])
    await database.discard(1)
    assert await staging.parked("S") == {(2, T + 2)}


async def test_progress_can_be_shown_at_any_time(staging: Staging) -> None:
    for position in range(3):
        await staging.show(position, 3)


async def test_equal_tables_do_not_differ(store: Store, staging: Staging) -> None:
    for rows in (store, staging):
        await save(rows, {"e": after(connected(1))})
    await staging.compare()
    found = await differences(staging)
    assert found.clean
    assert (found.compared, found.by_column, found.shown) == (1, {}, [])


async def test_differences_are_counted_by_kind_and_column_and_shown(store: Store, staging: Staging) -> None:
    await save(store, {"same": after(connected(1)), "extra": after(connected(2)), "other": after(connected(3))})
    await save(
        staging,
        {
            "same": after(connected(1)),
            "missing": after(connected(2)),
            "other": after(connected(3, version="v2"), announced(4)),
        },
    )
    await staging.compare()
    found = await differences(staging)
    assert (found.compared, found.missing, found.extra, found.different) == (4, 1, 1, 1)
    counts = {name: 1 for name in found.by_column if not name.endswith("_registers")}
    assert counts == dict.fromkeys(
        (
            "app_version",
            "config_available_at",
            "config_available_id",
            "config_pending_id",
            "config_status",
            "last_event_at",
            "last_event_seq",
        ),
        1,
    )
    assert [row[:2] for row in found.shown] == [("extra", "extra"), ("missing", "missing"), ("other", "different")]
    (*_, other) = found.shown
    assert other.columns["app_version"] == ("v1", "v2")
    assert other.columns["config_status"] == ("none", "pending")
    assert set(other.columns) == set(found.by_column)
    assert [row.endpoint_id for row in (await differences(staging, show=2)).shown] == ["extra", "missing"]
    assert [row.endpoint_id for row in (await differences(staging, endpoint_id="other")).shown] == ["other"]
    assert (await differences(staging, endpoint_id="same")).shown == []


async def test_rows_folded_after_the_comparison_are_compared_in_the_final_transaction(
    store: Store, staging: Staging
) -> None:
    await staging.compare()
    await save(staging, {"before": after(connected(6)), "same": after(connected(6))})
    await save(store, {"same": after(connected(6))})
    async with staging.finish() as final:
        async with final.savepoints.transaction() as work:
            await work.save({"within": after(connected(7))})
        found = await final.differences(show=9, endpoint_id=None)
    assert [row[:2] for row in found.shown] == [("before", "missing"), ("within", "missing")]


async def test_comparison_without_apply_changes_nothing(
    database: DatabaseUnderTest, store: Store, staging: Staging
) -> None:
    await save(store, {"e": after(connected(1))})
    await staging.compare()
    assert not (await differences(staging)).clean
    assert (await database.endpoints(), await store.checkpoint()) == ({"e": 1}, checkpoint(5))


async def test_apply_makes_the_live_table_equal_to_the_staging_table_and_moves_the_checkpoint(
    database: DatabaseUnderTest, store: Store, staging: Staging
) -> None:
    await save(store, {"same": after(connected(1)), "extra": after(connected(2)), "other": after(connected(3))})
    implied = {
        "missing": after(connected(2)),
        "other": after(connected(3, version="v2"), announced(4)),
        "same": after(connected(1)),
    }
    await save(staging, implied)
    await staging.compare()
    async with staging.finish() as final:
        assert await final.hold() == [checkpoint(5)]
        await final.differences(show=0, endpoint_id=None)
        await final.apply([checkpoint(7, generation=1)], [])
    assert await database.endpoints() == {"missing": 2, "other": 4, "same": 1}
    assert await everything(store, *implied) == [facts(endpoint) for endpoint in implied.values()]
    assert await store.checkpoint() == checkpoint(7, generation=1)
    with pytest.raises(RowsChangedError):
        async with store.transaction() as work:
            await work.hold(checkpoint(7))


async def test_a_batch_that_waits_for_the_final_transaction_is_committed_after_it(
    database: DatabaseUnderTest, store: Store, staging: Staging
) -> None:
    async def commit() -> None:
        async with store.transaction() as work:
            await work.hold(checkpoint(5))
            await work.save({"e": after(connected(6))})
            await work.advance(checkpoint(5), checkpoint(6))

    await save(staging, {"missing": after(connected(2))})
    await staging.compare()
    async with staging.finish() as final:
        await final.hold()
        committing = asyncio.create_task(commit())
        for _ in range(10):
            await store.load({"e": EVERY_FACET}, {})  # the other transaction reaches the lock meanwhile
        assert not committing.done()
        await final.differences(show=0, endpoint_id=None)
        await final.apply([checkpoint(5)], [])
    await committing
    assert await database.endpoints() == {"e": 6, "missing": 2}
    assert await store.checkpoint() == checkpoint(6)


async def test_the_first_checkpoint_may_be_that_of_a_rebuild(database: DatabaseUnderTest) -> None:
    staging = await database.open_staging()
    assert await staging.checkpoints() == []
    await save(staging, {"e": after(connected(1))})
    await staging.compare()
    async with staging.finish() as final:
        assert await final.hold() == []
        await final.differences(show=0, endpoint_id=None)
        await final.apply([START], [])
    assert (await database.endpoints(), await staging.checkpoints()) == ({"e": 1}, [START])


async def test_apply_settles_the_replayed_dead_letters(
    database: DatabaseUnderTest, store: Store, staging: Staging
) -> None:
    async with store.transaction() as work:
        await work.park("S", [letter(position) for position in (1, 2, 3, 4, 5)])
    await database.discard(4)
    await database.discard(5)
    async with staging.transaction() as work:
        await work.park("S", [letter(2), letter(4), letter(5, stored_at=T), letter(6)])
    await staging.compare()
    async with staging.finish() as final:
        await final.hold()
        await final.differences(show=0, endpoint_id=None)
        await final.apply([checkpoint(5)], [1, 2])
    assert await database.dead_letters() == [
        (1, "resolved", 1),
        (2, "parked", 1),
        (3, "parked", 1),  # not replayed
        (4, "discarded", 1),
        (5, "parked", 1),  # another message
        (6, "parked", 1),
    ]


async def save_and_fail(transactions: Transactions, endpoints: Mapping[str, Endpoint]) -> None:
    async with transactions.transaction() as work:
        await work.save(endpoints)
        raise ZeroDivisionError


async def apply_and_fail(staging: Staging) -> None:
    async with staging.finish() as final:
        await final.hold()
        async with final.savepoints.transaction() as work:
            await work.save({"f": after(connected(6))})
            await work.park("S", [letter(6)])
        await final.differences(show=0, endpoint_id=None)
        await final.apply([checkpoint(7, generation=1)], [])
        raise ZeroDivisionError


async def test_lost_connection_fails_the_final_transaction_and_ends_the_rebuild(
    database: DatabaseUnderTest, staging: Staging, eventually: Eventually
) -> None:
    async def disconnected() -> bool:
        return not staging.connected

    await staging.compare()
    assert staging.connected
    await database.lose_connections()
    with pytest.raises(DatabaseUnavailableError):
        async with staging.finish() as final:
            await final.hold()
    await eventually(disconnected)


async def test_failed_savepoint_rolls_back_only_itself(staging: Staging) -> None:
    await staging.compare()
    async with staging.finish() as final:
        async with final.savepoints.transaction() as work:
            await work.save({"e": after(connected(6))})
        with pytest.raises(ZeroDivisionError):
            await save_and_fail(final.savepoints, {"e": after(announced(7))})
        async with final.savepoints.transaction() as work:
            loaded = await work.load({"e": EVERY_FACET})
            assert facts(loaded["e"]) == facts(after(connected(6)))
            await work.save({"e": after(announced(8))})
    assert await everything(staging, "e") == [facts(after(connected(6), announced(8)))]


async def test_failed_final_transaction_rolls_back_everything(
    database: DatabaseUnderTest, store: Store, staging: Staging
) -> None:
    await save(store, {"e": after(connected(1))})
    await staging.compare()
    with pytest.raises(ZeroDivisionError):
        await apply_and_fail(staging)
    assert (await database.endpoints(), await database.dead_letters()) == ({"e": 1}, [])
    assert await everything(staging, "f") == [facts(after())]
    async with store.transaction() as work:
        await work.hold(checkpoint(5))


async def test_progress_can_be_shown_while_a_batch_is_written(staging: Staging) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(save(staging, {"e": after(connected(1))}))
        tasks.create_task(staging.show(1, 2))
    assert await everything(staging, "e") == [facts(after(connected(1)))]
