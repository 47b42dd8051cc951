from dataclasses import replace
from typing import Any

import pytest

from projector.app.projection import Batch, Outcome, Projection
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.facets import Verdict
from projector.domain.messages import Message
from projector.errors import CheckpointMovedError, DamagedRowError, DatabaseRefusedError, DatabaseUnavailableError
from projector.stream import subjects
from tests.support.fixtures import Wire
from tests.support.memory.database import CommitFault
from tests.support.memory.scene import RULES, MemoryScene
from tests.support.memory.store import MemoryStore

MALFORMED: Wire = (subjects.build("kpc", "connectivity.connected"), b"\xff")
START = Checkpoint(stream="S", stream_created_at=0, rules=RULES)


def unknown(kind: str) -> Wire:
    return subjects.build("kpc", kind), b""


@pytest.fixture
async def store(scene: MemoryScene) -> MemoryStore:
    store = MemoryStore(scene.database)
    await store.open()
    await store.begin(START)
    return store


@pytest.fixture
def projection(scene: MemoryScene, store: MemoryStore) -> Projection:
    return Projection(scene.codec, store, START)


async def messages(scene: MemoryScene, *wires: Wire) -> list[Message]:
    """Publish, and return what was published."""
    first = scene.stream.state().last
    await scene.stream.publish(*wires)
    return scene.stream.after(first)


async def process(projection: Projection, some: list[Message]) -> Outcome:
    return await projection.process(await projection.decode(some))


async def everything(scene: MemoryScene) -> tuple[object, ...]:
    return await scene.database.endpoints(), await scene.database.dead_letters(), scene.database.checkpoint


async def test_batch_is_decoded_without_endpoint_state(scene: MemoryScene, projection: Projection) -> None:
    some = await messages(
        scene, *scene.connects(1, 2), MALFORMED, unknown("config.b"), unknown("config.b"), unknown("lifecycle.c")
    )
    batch = await projection.decode(some)
    assert (batch.position, batch.messages, batch.anchor) == (6, some, Anchor.of(some[-1]))
    assert [event.endpoint_ids for event in batch.events] == [("e1",), ("e2",)]
    assert [(letter.message.position, letter.reason) for letter in batch.dead_letters] == [(3, "malformed-payload")]
    assert batch.skipped == {"config.b": 2, "lifecycle.c": 1}
    assert batch.needed == {"e1": 0b0011, "e2": 0b0011}


async def test_a_commit_moves_rows_dead_letters_and_checkpoint_together(
    scene: MemoryScene, projection: Projection
) -> None:
    some = await messages(scene, *scene.connects(1, 2), MALFORMED, unknown("config.b"))
    outcome = await process(projection, some)
    after = replace(START, position=4, anchor=Anchor.of(some[-1]), skipped={"config.b": 1})
    assert await everything(scene) == ({"e1": 1, "e2": 2}, [(3, "parked", 1)], after)
    assert projection.checkpoint == after
    assert (outcome.messages, outcome.events, outcome.duplicates, outcome.refolded) == (4, 2, 0, False)
    assert {verdict: count for (_, verdict), count in outcome.verdicts.items()} == {Verdict.APPLIED: 2}
    assert (outcome.skipped, len(outcome.dead_letters)) == ({"config.b": 1}, 1)
    assert set(outcome.seconds) == {"decode", "load", "fold", "save", "commit"}


async def test_batch_folded_ahead_gives_the_same_result(scene: MemoryScene, store: MemoryStore) -> None:
    first = await messages(scene, *scene.connects(1, 2))
    second = await messages(scene, scene.event("connectivity.disconnected", endpointIds=["e1"]), *scene.connects(2, 3))
    projection = Projection(scene.codec, store, START)
    one = await projection.fold_ahead(await projection.decode(first), store, None)
    two = await projection.fold_ahead(await projection.decode(second), store, one)
    for folded in (one, two):
        await projection.process(folded.batch, folded)
    assert await scene.database.endpoints() == {"e1": 3, "e2": 4, "e3": 5}
    connectivity = scene.database.live.endpoints["e1"].states[0]
    assert (connectivity.connected.position, connectivity.disconnected.position) == (1, 3)


async def test_a_batch_without_messages_moves_the_checkpoint_across_a_gap(
    scene: MemoryScene, projection: Projection
) -> None:
    await process(projection, await messages(scene, *scene.connects(1, 1)))
    await projection.process(Batch(position=7))
    assert scene.database.checkpoint == replace(START, position=7, anchor=None)


CULPRITS = [{1}, {8}, {4}, {4, 5}, {1, 8}, {2, 3, 7}, {1, 3, 5, 7}, set(range(1, 9))]


@pytest.mark.parametrize("culprits", CULPRITS, ids=lambda found: "".join(map(str, found)))
@pytest.mark.parametrize("ahead", [False, True], ids=["in the transaction", "ahead"])
async def test_halving_parks_only_the_rejected_messages(
    scene: MemoryScene, store: MemoryStore, projection: Projection, culprits: set[int], *, ahead: bool
) -> None:
    for position in culprits:
        await scene.database.refuse(f"e{position}")
    batch = await projection.decode(await messages(scene, *scene.connects(1, 8)))
    folded = await projection.fold_ahead(batch, store, None) if ahead else None
    outcome = await projection.process(batch, folded)
    assert [letter.message.position for letter in outcome.dead_letters] == sorted(culprits)
    assert {letter.reason for letter in outcome.dead_letters} == {"database-rejected"}
    assert (outcome.messages, outcome.events, outcome.refolded) == (8, 8 - len(culprits), True)
    assert await scene.database.dead_letters() == [(position, "parked", 1) for position in sorted(culprits)]
    assert sorted((await scene.database.endpoints()).values()) == [n for n in range(1, 9) if n not in culprits]
    assert (scene.position, projection.checkpoint.position) == (8, 8)


async def test_halving_counts_everything_in_the_batch_once(scene: MemoryScene, projection: Projection) -> None:
    await scene.database.refuse("e2")
    some = await messages(
        scene, *scene.connects(1, 3), MALFORMED, unknown("config.b"), unknown("config.b"), *scene.connects(4, 4)
    )
    outcome = await process(projection, some)
    assert (outcome.messages, outcome.events, outcome.skipped) == (7, 3, {"config.b": 2})
    assert sorted(letter.message.position for letter in outcome.dead_letters) == [2, 4]
    assert projection.checkpoint.skipped == {"config.b": 2}


async def test_an_event_about_an_endpoint_that_is_refused_changes_none_of_the_others_it_names(
    scene: MemoryScene, projection: Projection
) -> None:
    await scene.database.refuse("bad")
    both = scene.event("connectivity.disconnected", endpointIds=["e1", "bad"])
    outcome = await process(projection, await messages(scene, *scene.connects(1, 1), both))
    assert [letter.message.position for letter in outcome.dead_letters] == [2]
    assert scene.database.live.endpoints["e1"].states[0].rests_on[0] == "connected"


async def test_a_dead_letter_that_cannot_be_parked_is_fatal_and_nothing_is_committed(
    scene: MemoryScene, projection: Projection
) -> None:
    scene.database.takes_dead_letters = False
    some = await messages(scene, MALFORMED)
    with pytest.raises(DatabaseRefusedError, match="dead_letter"):
        await process(projection, some)
    assert await everything(scene) == ({}, [], START)
    assert not projection.committing


async def test_damaged_row_is_named_and_the_message_is_not_parked(scene: MemoryScene, projection: Projection) -> None:
    await process(projection, await messages(scene, *scene.connects(1, 2)))
    scene.database.damaged.add("e2")
    some = await messages(scene, *scene.connects(1, 3))
    with pytest.raises(DamagedRowError) as damaged:
        await process(projection, some)
    assert damaged.value.endpoint_id == "e2"
    assert await scene.database.dead_letters() == []
    assert scene.position == projection.checkpoint.position == 3  # earlier messages remain committed


@pytest.mark.parametrize("again", [range(1, 4), range(2, 3), range(2, 6)], ids=["all", "one", "overlapping"])
@pytest.mark.parametrize("ahead", [False, True], ids=["in the transaction", "ahead"])
async def test_messages_that_were_folded_before_are_dropped(
    scene: MemoryScene, store: MemoryStore, projection: Projection, again: range, *, ahead: bool
) -> None:
    some = await messages(scene, *scene.connects(1, 3), MALFORMED, unknown("config.b"))
    await process(projection, some[:3])
    before = scene.database.checkpoint
    scene.database.live.endpoints.clear()  # so that folding them again would be visible
    batch = await projection.decode([message for message in some if message.position in again])
    folded = await projection.fold_ahead(batch, store, None) if ahead else None
    outcome = await projection.process(batch, folded)
    old, new = [n for n in again if n <= 3], [n for n in again if n > 3]
    assert (outcome.duplicates, outcome.messages, outcome.events) == (len(old), len(new), 0)
    assert len(outcome.dead_letters) == len(await scene.database.dead_letters()) == (4 in new)
    assert await scene.database.endpoints() == {}
    assert scene.position == max(again[-1], 3)
    assert (scene.database.checkpoint == before) is not bool(new)


async def test_folded_message_is_not_folded_again_after_a_clock_step(
    scene: MemoryScene, projection: Projection
) -> None:
    def announced(config: str, replica: str, at: int) -> Wire:
        record: dict[str, Any] = {"configId": config, "originatorReplicaId": replica, "timestamp": at}
        return scene.event("config.new-available", "e", **record)

    some = await messages(scene, announced("c1", "x", 100), announced("c2", "y", 90), announced("c3", "x", 50))
    await process(projection, some)
    await process(projection, some[1:])
    assert scene.database.live.endpoints["e"].states[4].available.value == "c3"


async def test_excess_unknown_types_are_counted_together(scene: MemoryScene, projection: Projection) -> None:
    some = await messages(scene, *(unknown(f"config.t{n}") for n in range(205)), unknown("config.t3"))
    await process(projection, some[:150])
    await process(projection, some[150:])
    skipped = projection.checkpoint.skipped
    assert (len(skipped), skipped["(other)"], skipped["config.t3"], sum(skipped.values())) == (201, 5, 2, 206)


async def test_a_checkpoint_that_moved_is_noticed_before_anything_is_written(
    scene: MemoryScene, projection: Projection
) -> None:
    scene.database.checkpoint = replace(START, position=1)
    some = await messages(scene, *scene.connects(1, 2))
    with pytest.raises(CheckpointMovedError):
        await process(projection, some)
    assert (await scene.database.endpoints(), projection.checkpoint, projection.committing) == ({}, START, False)


async def test_changed_rows_are_reloaded_and_the_batch_is_folded_again(
    scene: MemoryScene, store: MemoryStore, projection: Projection
) -> None:
    await process(projection, await messages(scene, *scene.connects(1, 1)))
    batch = await projection.decode(await messages(scene, scene.event("config.new-available", "e1", configId="c")))
    folded = await projection.fold_ahead(batch, store, None)
    assert scene.database.checkpoint is not None
    scene.database.checkpoint = replace(scene.database.checkpoint, generation=4)
    del scene.database.live.endpoints["e1"]
    outcome = await projection.process(batch, folded)
    assert outcome.refolded
    assert projection.checkpoint == scene.database.checkpoint
    assert (scene.database.checkpoint.generation, scene.position) == (4, 2)
    assert scene.database.live.endpoints["e1"].states[0].connected is None


@pytest.mark.parametrize(("fault", "position"), [(CommitFault.ROLLED_BACK, 0), (CommitFault.UNKNOWN, 2)])
async def test_failed_commit_leaves_the_projection_unchanged(
    scene: MemoryScene, projection: Projection, fault: CommitFault, position: int
) -> None:
    scene.database.commit_faults.append(fault)
    some = await messages(scene, *scene.connects(1, 2))
    with pytest.raises(DatabaseUnavailableError):
        await process(projection, some)
    assert (scene.position, projection.checkpoint, projection.committing) == (position, START, False)
