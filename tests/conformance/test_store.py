"""The port Store, apart from its transactions."""

import asyncio
from dataclasses import replace

import pytest

from projector.errors import DatabaseUnavailableError
from tests.conformance.databases import DatabaseUnderTest
from tests.conformance.states import EVERY_FACET, START, after, announced, checkpoint, connected, facts
from tests.support.fixtures import Eventually


async def test_one_store_leads_at_a_time(database: DatabaseUnderTest, eventually: Eventually) -> None:
    leader, standby = await database.open_store(), await database.open_store()
    assert await leader.lead()
    assert not await standby.lead()
    assert await leader.lead()
    await leader.close()
    await eventually(standby.lead)  # a server notices a moment later that a client has disconnected
    await leader.open()
    assert not await leader.lead()


async def test_another_store_can_lead_at_once_after_the_leader_has_left(database: DatabaseUnderTest) -> None:
    leader, standby = await database.open_store(), await database.open_store()
    for _ in range(20):  # a store that did not wait would be too early in some of them
        assert await leader.lead()
        await leader.leave()
        await leader.leave()
        assert await standby.lead()
        await standby.leave()
        await leader.open()
        await standby.open()
    await leader.leave()
    with pytest.raises(DatabaseUnavailableError):
        await leader.checkpoint()


async def test_reopened_store_has_lost_the_lead(database: DatabaseUnderTest, eventually: Eventually) -> None:
    first, second = await database.open_store(), await database.open_store()
    assert await first.lead()
    await first.open()
    await eventually(second.lead)
    assert not await first.lead()


async def test_lost_connection_loses_the_lead_and_is_reported(
    database: DatabaseUnderTest, eventually: Eventually
) -> None:
    leader = await database.open_store()
    assert await leader.lead()
    watching = asyncio.create_task(leader.watch())
    await asyncio.sleep(0)
    await database.lose_connections()
    with pytest.raises(DatabaseUnavailableError):
        await watching
    standby = await database.open_store()
    await eventually(standby.lead)
    with pytest.raises(DatabaseUnavailableError):
        await leader.checkpoint()
    await leader.open()
    assert not await leader.lead()


async def test_a_closed_store_can_be_closed_and_opened_again(database: DatabaseUnderTest) -> None:
    store = await database.open_store()
    await store.begin(START)
    await store.close()
    await store.close()
    with pytest.raises(DatabaseUnavailableError):
        await store.checkpoint()
    await store.open()
    assert await store.checkpoint() == START


async def test_a_store_that_keeps_the_log_says_so(database: DatabaseUnderTest) -> None:
    assert (await database.open_store()).logs_changes


async def test_store_waits_while_a_transaction_is_open(database: DatabaseUnderTest) -> None:
    store = await database.open_store()
    seen = [store.waiting]
    async with store.transaction():
        seen.append(store.waiting)
    assert [*seen, store.waiting] == [False, True, False]


async def test_the_lag_is_written_without_a_checkpoint_and_with_one(database: DatabaseUnderTest) -> None:
    store = await database.open_store()
    assert await store.lead()
    await store.write_lag()
    store.note_lag(3)
    await store.write_lag()
    assert await database.written_lag() is None
    await store.begin(START)
    await store.write_lag()
    assert await database.written_lag() == 3
    store.note_lag(0)
    assert await database.written_lag() == 3
    await store.write_lag()
    assert await database.written_lag() == 0
    assert await store.checkpoint() == START


async def test_first_checkpoint_is_written_once_and_not_replaced(
    database: DatabaseUnderTest,
) -> None:
    store, other = await database.open_store(), await database.open_store()
    assert await store.checkpoint() is None
    await store.begin(START)
    await other.begin(checkpoint(7))
    assert await store.checkpoint() == START
    assert await other.checkpoint() == START


async def test_an_endpoint_without_a_row_is_loaded_as_unseen(database: DatabaseUnderTest) -> None:
    store = await database.open_store()
    loaded = await store.load({"e": 0b1}, {})
    assert facts(loaded["e"]) == facts(after())


async def test_only_the_facets_that_are_needed_are_loaded(database: DatabaseUnderTest) -> None:
    store = await database.open_store()
    saved = after(connected(1), announced(2))
    async with store.transaction() as work:
        await work.save({"e": saved})
    loaded = await store.load({"e": 0b10000, "f": 0b1}, {})
    assert loaded["e"].states == [None, None, None, None, saved.states[4]]
    assert (loaded["e"].changed, loaded["e"].last_event_seq) == (0, 2)


async def test_uncommitted_endpoints_are_loaded_and_completed_from_the_row(database: DatabaseUnderTest) -> None:
    store = await database.open_store()
    async with store.transaction() as work:
        await work.save({"e": after(connected(1), announced(2)), "f": after(connected(1))})
    uncommitted = after(announced(3), on=(await store.load({"e": 0b10000}, {}))["e"])
    loaded = await store.load({"e": 0b10001, "f": 0b1}, {"e": uncommitted})
    assert facts(loaded["e"]) == (
        after(connected(1)).states[0],
        None,
        None,
        None,
        after(announced(3)).states[4],
        3,
        after(announced(3)).last_event_at,
    )
    assert facts(loaded["f"])[0] == after(connected(1)).states[0]
    assert loaded["e"] is not uncommitted
    assert loaded["e"].changed == 0


async def test_loaded_endpoints_are_copies_of_the_reader(database: DatabaseUnderTest) -> None:
    store = await database.open_store()
    saved = after(connected(1))
    async with store.transaction() as work:
        await work.save({"e": saved})
    after(announced(2), on=saved)
    after(announced(3), on=(await store.load({"e": EVERY_FACET}, {}))["e"])
    loaded = await store.load({"e": EVERY_FACET}, {})
    assert facts(loaded["e"]) == facts(after(connected(1)))


async def test_writes_become_visible_to_load_after_the_commit(database: DatabaseUnderTest) -> None:
    store = await database.open_store()
    await store.begin(START)
    async with store.transaction() as work:
        await work.hold(START)
        await work.save({"e": after(connected(1))})
        await work.advance(START, replace(START, position=1))
        assert facts((await work.load({"e": EVERY_FACET}))["e"]) == facts(after(connected(1)))
        assert facts((await store.load({"e": EVERY_FACET}, {}))["e"]) == facts(after())
    assert facts((await store.load({"e": EVERY_FACET}, {}))["e"]) == facts(after(connected(1)))
