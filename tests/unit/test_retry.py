from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import count

import pytest

from projector.app import dead_letters as dead_letters_module
from projector.app.dead_letters import Retried, retry
from projector.domain.messages import Selection
from projector.domain.rules import Rules
from projector.errors import (
    CheckpointMovedError,
    DatabaseUnavailableError,
    NoDeadLetterError,
    RetryTooEarlyError,
    RulesChangedError,
)
from projector.stream import subjects
from tests.support.fixtures import Wire
from tests.support.memory.database import CommitFault
from tests.support.memory.retry import MemoryRetryStore
from tests.support.memory.scene import RULES, MemoryScene

MALFORMED: Wire = (subjects.build("kpc", "connectivity.connected"), b"\xff")


@pytest.fixture
async def parked(scene: MemoryScene) -> MemoryScene:
    """A scene with a malformed message, and two that were rejected before and are accepted now."""
    await scene.stream.publish(*scene.connects(1, 2), MALFORMED, *scene.connects(4, 5))
    for number in (2, 4):
        await scene.database.refuse(f"e{number}")
    await scene.fold()
    assert await scene.database.dead_letters() == [(2, "parked", 1), (3, "parked", 1), (4, "parked", 1)]
    scene.database.refused.clear()
    return scene


@pytest.fixture
async def store(parked: MemoryScene) -> AsyncIterator[MemoryRetryStore]:
    store = MemoryRetryStore(parked.database, "S")
    await store.open()
    yield store
    await store.close()


async def run(
    scene: MemoryScene, store: MemoryRetryStore, selection: Selection, *, stream: str = "S", rules: Rules = RULES
) -> list[Retried]:
    return [retried async for retried in retry(scene.codec, store, selection, stream=stream, rules=rules)]


async def test_dead_letters_are_folded_one_by_one_or_parked_again(parked: MemoryScene, store: MemoryRetryStore) -> None:
    found = await run(parked, store, Selection())
    assert [(one.position, one.parked_again is None) for one in found] == [(2, True), (3, False), (4, True)]
    assert await parked.database.dead_letters() == [(2, "resolved", 2), (3, "parked", 2), (4, "resolved", 2)]
    assert await parked.database.endpoints() == {"e1": 1, "e2": 2, "e4": 4, "e5": 5}
    assert parked.database.checkpoint is not None
    assert (parked.position, parked.database.checkpoint.generation) == (5, 2)


async def test_only_selected_dead_letters_are_retried(parked: MemoryScene, store: MemoryRetryStore) -> None:
    assert [one.position for one in await run(parked, store, Selection(positions=(4,)))] == [4]
    assert [one.position for one in await run(parked, store, Selection(reason="malformed-payload"))] == [3]


async def test_position_without_a_dead_letter_is_refused_before_any_retry(
    parked: MemoryScene, store: MemoryRetryStore
) -> None:
    with pytest.raises(NoDeadLetterError) as refused:
        await run(parked, store, Selection(positions=(2, 5)))
    assert refused.value.position == 5
    assert await parked.database.dead_letters() == [(2, "parked", 1), (3, "parked", 1), (4, "parked", 1)]


async def test_late_message_changes_only_what_it_supersedes(parked: MemoryScene, store: MemoryRetryStore) -> None:
    await parked.stream.publish(parked.event("connectivity.connected", "e2", appVersionName="later"))
    await parked.fold()
    await run(parked, store, Selection(positions=(2,)))
    application = parked.database.live.endpoints["e2"].states[1]
    assert (application.version.value, await parked.database.endpoints()) == (
        "later",
        {"e1": 1, "e2": 6, "e5": 5},
    )


async def test_a_message_that_is_refused_again_is_parked_again(parked: MemoryScene, store: MemoryRetryStore) -> None:
    await parked.database.refuse("e2")
    (found,) = await run(parked, store, Selection(positions=(2,)))
    assert found.parked_again is not None
    assert found.parked_again.reason == "database-rejected"
    assert (2, "parked", 2) in await parked.database.dead_letters()


@pytest.mark.parametrize(
    ("believed", "error"),
    [
        ({"rules": replace(RULES, version=0)}, RulesChangedError),
        ({"stream": "OTHER"}, CheckpointMovedError),
    ],
    ids=["other rules", "other stream"],
)
async def test_dead_letters_are_not_folded_into_rows_of_other_rules_or_another_stream(
    parked: MemoryScene, store: MemoryRetryStore, believed: dict[str, object], error: type[Exception]
) -> None:
    assert parked.database.checkpoint is not None
    parked.database.checkpoint = replace(parked.database.checkpoint, **believed)  # type: ignore[arg-type]
    with pytest.raises(error):
        await run(parked, store, Selection())
    assert await parked.database.endpoints() == {"e1": 1, "e5": 5}


async def test_retries_before_an_error_remain_committed(parked: MemoryScene, store: MemoryRetryStore) -> None:
    parked.database.commit_faults.extend([None, CommitFault.ROLLED_BACK])
    with pytest.raises(DatabaseUnavailableError):
        await run(parked, store, Selection())
    assert await parked.database.dead_letters() == [(2, "resolved", 2), (3, "parked", 1), (4, "parked", 1)]


async def test_a_dead_letter_of_one_shard_waits_until_the_others_have_come_to_its_position(
    parked: MemoryScene, store: MemoryRetryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = parked.database.checkpoint
    assert ahead is not None
    paused: list[int] = []
    arrives = 3

    def pauses_s(**_: float) -> Iterator[float]:
        for number in count(1):
            paused.append(number)
            if number == arrives:
                parked.database.checkpoint = ahead
            yield 0

    monkeypatch.setattr(dead_letters_module, "growing_pauses_s", pauses_s)
    parked.database.checkpoint = replace(ahead, position=3)
    assert [one.position for one in await run(parked, store, Selection(positions=(4,)))] == [4]
    assert paused == [1, 2, 3]
    parked.database.checkpoint = replace(ahead, position=2)
    arrives = 0
    with pytest.raises(RetryTooEarlyError, match="folded up to position 2 only"):
        await run(parked, store, Selection(positions=(3,)))
