"""The port RetryStore."""

from dataclasses import replace

import pytest

from projector.app.dead_letters import RetryStore
from projector.app.ports import Store
from projector.domain.messages import Selection
from projector.errors import CheckpointMovedError, NoDeadLetterError, RulesChangedError
from tests.conformance.databases import DatabaseUnderTest
from tests.conformance.states import RULES, after, checkpoint, connected, letter

OF_ANOTHER_STREAM = replace(checkpoint(1), stream="OTHER")
OF_OTHER_RULES = replace(checkpoint(1), rules=replace(RULES, revision="kaa-2031-01"))


@pytest.fixture
async def store(database: DatabaseUnderTest) -> Store:
    """A store whose checkpoint is at position 5, with four dead letters."""
    store = await database.open_store()
    await store.begin(checkpoint(5))
    async with store.transaction() as work:
        refused = letter(3)._replace(reason="database-rejected")
        await work.park("S", [letter(4), letter(2), refused, letter(1)])
        await work.park("OTHER", [letter(9)])
    await database.discard(1)
    return store


@pytest.fixture
async def retry(database: DatabaseUnderTest, store: Store) -> RetryStore:
    del store  # exists beforehand
    return await database.open_retry()


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(), [2, 3, 4]),
        (Selection(positions=(4, 1, 3)), [3, 4]),
        (Selection(reason="database-rejected"), [3]),
        (Selection(positions=(2,), reason="database-rejected"), []),
    ],
)
async def test_parked_dead_letters_are_chosen_by_position_and_reason(
    retry: RetryStore, selection: Selection, chosen: list[int]
) -> None:
    assert await retry.positions(selection) == chosen


async def test_parked_message_is_returned_unchanged(retry: RetryStore) -> None:
    assert await retry.message(2) == letter(2).message
    with pytest.raises(NoDeadLetterError):
        await retry.message(9)


async def test_one_checkpoint_is_one_shard(retry: RetryStore) -> None:
    assert await retry.count_shards() == 1


async def test_a_retried_dead_letter_is_resolved_and_the_checkpoint_stays(
    database: DatabaseUnderTest, store: Store, retry: RetryStore
) -> None:
    async with retry.transaction() as work:
        await work.hold(checkpoint(1))
        await work.save({"e": after(connected(2))})
        await work.advance(checkpoint(1), checkpoint(2))
    assert await database.endpoints() == {"e": 2}
    assert (2, "resolved", 2) in await database.dead_letters()
    assert await store.checkpoint() == checkpoint(5, generation=1)


async def test_parking_again_counts_the_attempt_and_keeps_the_generation(
    database: DatabaseUnderTest, store: Store, retry: RetryStore
) -> None:
    async with retry.transaction() as work:
        await work.hold(checkpoint(1))
        await work.park("S", [letter(2)])
        await work.advance(checkpoint(1), checkpoint(2))
    assert (2, "parked", 2) in await database.dead_letters()
    assert await store.checkpoint() == checkpoint(5)


async def test_dead_letters_of_another_stream_or_other_rules_are_not_retried(retry: RetryStore) -> None:
    for believed, error in ((OF_ANOTHER_STREAM, CheckpointMovedError), (OF_OTHER_RULES, RulesChangedError)):
        with pytest.raises(error):
            async with retry.transaction() as work:
                await work.hold(believed)
