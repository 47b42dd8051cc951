import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from projector.app.rebuild import Rebuild, RebuildOptions, Report
from projector.domain.checkpoint import Anchor
from projector.domain.endpoint import Endpoint
from projector.errors import (
    BrokerUnavailableError,
    DatabaseUnavailableError,
    DeliveryInterruptedError,
    StreamTrimmedError,
    TransientError,
)
from projector.stream import subjects
from tests.support.fixtures import Wire
from tests.support.memory.database import CommitFault, MemoryDatabase
from tests.support.memory.scene import RULES, MemoryScene
from tests.support.memory.staging import MemoryFinalTransaction, MemoryStaging
from tests.support.memory.turns import until
from tests.support.memory.unit_of_work import MemoryUnitOfWork
from tests.support.patience import PATIENCE_S

MALFORMED: Wire = (subjects.build("kpc", "connectivity.connected"), b"\xff")
UNKNOWN: Wire = (subjects.build("kpc", "config.future"), b"")

During = Callable[[int], Awaitable[None]]


@dataclass
class Rebuilds:
    """Rebuilds and verifications of a scene."""

    scene: MemoryScene
    during: During | None = None
    """Called after each batch of the replay, with the position reached."""
    progress: list[tuple[int, int]] = field(default_factory=list)
    """Of the last one: positions reached, and the one to reach."""

    async def rebuild(self, *, apply: bool = True, **options: Any) -> Report:
        scene = self.scene
        self.progress.clear()
        staging = MemoryStaging(scene.database)
        if self.during is not None:
            during = self.during

            class Watched(MemoryStaging):
                async def show(self, position: int, target: int) -> None:
                    await super().show(position, target)
                    await during(position)

            staging = Watched(scene.database)
        await staging.open()
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await Rebuild(
                    scene.codec,
                    lambda: scene.stream.open(batch_size=scene.batch_size),
                    staging,
                    RebuildOptions(rules=RULES, stream="S", apply=apply, **options),
                    lambda *reached: self.progress.append(reached),
                ).run()
        finally:
            await staging.close()

    async def verify(self, **options: Any) -> Report:
        return await self.rebuild(apply=False, **options)


@pytest.fixture
def rebuilds(scene: MemoryScene) -> Rebuilds:
    return Rebuilds(scene)


@pytest.fixture
async def folded(scene: MemoryScene) -> MemoryScene:
    """A scene in which nine messages about eight endpoints are folded."""
    scene.batch_size = 2
    await scene.stream.publish(*scene.connects(1, 8), scene.event("config.new-available", "e1", configId="c1"))
    await scene.fold()
    return scene


def table(database: MemoryDatabase) -> dict[str, tuple[Any, ...]]:
    """All rows of the live table."""
    return {
        endpoint_id: (*row.states, row.last_event_seq, row.last_event_at)
        for endpoint_id, row in database.live.endpoints.items()
    }


async def everything(scene: MemoryScene) -> tuple[object, ...]:
    return table(scene.database), dict(scene.database.live.dead_letters), scene.database.checkpoint


def forge(scene: MemoryScene) -> None:
    """Change one row, delete another and invent a third."""
    rows = scene.database.live.endpoints
    del rows["e2"]
    rows["invented"] = Endpoint(rows["e4"].states, 4, 4)
    rows["e3"] = Endpoint(rows["e4"].states, rows["e3"].last_event_seq, rows["e3"].last_event_at)


def figures(report: Report) -> tuple[int, int, int]:
    found = report.differences
    return found.missing, found.extra, found.different


async def test_correct_table_is_left_unchanged(folded: MemoryScene, rebuilds: Rebuilds) -> None:
    before = await everything(folded)
    for apply in (False, True):
        report = await rebuilds.rebuild(apply=apply)
        assert (report.clean, report.replayed, report.position, report.differences.compared) == (True, 9, 9, 8)
        assert await everything(folded) == before


async def test_verification_finds_differences_and_changes_nothing(folded: MemoryScene, rebuilds: Rebuilds) -> None:
    forge(folded)
    before = await everything(folded)
    report = await rebuilds.verify(show=5)
    assert figures(report) == (1, 1, 1)
    assert [row.endpoint_id for row in report.differences.shown] == ["e2", "e3", "invented"]
    assert await everything(folded) == before


async def test_rebuild_repairs_differences_and_increments_the_generation(
    folded: MemoryScene, rebuilds: Rebuilds
) -> None:
    right, checkpoint = table(folded.database), folded.database.checkpoint
    assert checkpoint is not None
    forge(folded)
    assert figures(await rebuilds.rebuild()) == (1, 1, 1)
    assert table(folded.database) == right
    assert folded.database.checkpoint == replace(checkpoint, generation=1)
    assert (await rebuilds.verify()).clean


async def test_rebuild_of_an_empty_database_builds_all_rows(scene: MemoryScene, rebuilds: Rebuilds) -> None:
    await scene.stream.publish(*scene.connects(1, 5), MALFORMED, UNKNOWN)
    report = await rebuilds.rebuild()
    assert (figures(report), report.position) == ((5, 0, 0), 7)
    assert await scene.database.endpoints() == {f"e{n}": n for n in range(1, 6)}
    assert await scene.database.dead_letters() == [(6, "parked", 1)]
    checkpoint = scene.database.checkpoint
    assert checkpoint is not None
    assert (checkpoint.position, checkpoint.skipped, checkpoint.generation) == (7, {"config.future": 1}, 0)
    assert (await scene.fold()).heard["active from 7"] == 1


async def test_an_empty_stream_implies_an_empty_table(folded: MemoryScene, rebuilds: Rebuilds) -> None:
    await folded.stream.recreate()
    report = await rebuilds.rebuild()
    assert (figures(report), report.replayed, report.position) == ((0, 8, 0), 0, 0)
    assert (await folded.database.endpoints(), folded.position) == ({}, 0)


async def test_rebuild_without_a_daemon_replays_to_the_end_of_the_stream(
    folded: MemoryScene, rebuilds: Rebuilds
) -> None:
    await folded.stream.publish(*folded.connects(10, 12))
    assert figures(await rebuilds.rebuild()) == (3, 0, 0)
    assert rebuilds.progress == [(position, 12) for position in range(2, 13, 2)]
    assert folded.position == 12
    assert (await folded.fold()).heard["active from 12"] == 1


async def test_verification_compares_up_to_the_checkpoint(folded: MemoryScene, rebuilds: Rebuilds) -> None:
    await folded.stream.publish(*folded.connects(10, 12))
    report = await rebuilds.verify()
    assert (report.clean, report.position) == (True, 9)


async def test_rebuild_during_a_session_repairs_the_table_and_the_session_continues(
    folded: MemoryScene, rebuilds: Rebuilds
) -> None:
    daemon = folded.follow()
    await daemon.hears("caught up at 9")
    forge(folded)

    async def publish(position: int) -> None:
        number = 100 + folded.stream.state().last
        if position < 20:
            await folded.stream.publish(*folded.connects(number, number))

    rebuilds.during = publish
    report = await rebuilds.rebuild()
    assert figures(report) == (1, 1, 1)
    await folded.stream.publish(folded.event("config.new-available", "e2", configId="c2"))
    last = folded.stream.state().last
    await daemon.hears(f"caught up at {last}")
    recorder = await daemon.stop()
    assert (recorder.errors, recorder.heard["active"]) == ([], 1)
    assert folded.database.checkpoint is not None
    assert (folded.position, folded.database.checkpoint.generation) == (last, 1)
    assert (await rebuilds.verify()).clean


async def test_rows_folded_after_the_comparison_are_compared_too(
    folded: MemoryScene, rebuilds: Rebuilds, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = MemoryStaging.compare

    async def compare_and_publish(staging: MemoryStaging) -> None:
        await compare(staging)
        await folded.stream.publish(folded.event("config.new-available", "e1", configId="c2"), *folded.connects(11, 11))
        await daemon.hears("caught up at 11")
        rows = folded.database.live.endpoints
        rows["e1"] = Endpoint(rows["e2"].states, rows["e1"].last_event_seq, rows["e1"].last_event_at)

    monkeypatch.setattr(MemoryStaging, "compare", compare_and_publish)
    daemon = folded.follow()
    await daemon.hears("caught up at 9")
    report = await rebuilds.rebuild()
    assert (figures(report), report.position, report.replayed) == ((0, 0, 1), 11, 11)
    await daemon.stop()
    assert folded.database.live.endpoints["e1"].states[4].available.value == "c2"


async def test_the_last_messages_are_folded_while_the_daemon_waits(
    folded: MemoryScene, rebuilds: Rebuilds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The final transaction folds, under the lock, what was committed after the catch-up."""
    finish = MemoryStaging.finish

    def fold_and_finish(staging: MemoryStaging) -> Any:
        row = folded.database.live.endpoints["e1"]
        last = folded.stream.message(10)
        checkpoint = folded.database.checkpoint
        assert last is not None
        assert checkpoint is not None
        folded.database.checkpoint = replace(checkpoint, position=10, anchor=Anchor.of(last))
        folded.database.live.endpoints["e10"] = Endpoint(row.states, 10, row.last_event_at)
        return finish(staging)

    monkeypatch.setattr(MemoryStaging, "finish", fold_and_finish)
    await folded.stream.publish(*folded.connects(10, 10))
    report = await rebuilds.verify()
    assert (figures(report), report.position, report.replayed) == ((0, 0, 1), 10, 10)


async def test_a_daemon_that_starts_during_a_rebuild_stands_by_until_it_is_over(
    folded: MemoryScene, rebuilds: Rebuilds
) -> None:
    standing_by = asyncio.Event()

    async def start(_: int) -> None:
        if not folded.daemons[1:]:
            await folded.follow().hears("standing by")
            standing_by.set()

    rebuilds.during = start
    await rebuilds.rebuild()
    assert standing_by.is_set()
    await folded.daemons[-1].hears("active from 9")


async def test_messages_that_cannot_be_folded_are_parked_once(folded: MemoryScene, rebuilds: Rebuilds) -> None:
    await folded.stream.publish(MALFORMED)
    await folded.fold()
    assert await folded.database.dead_letters() == [(10, "parked", 1)]
    assert (await rebuilds.rebuild()).clean
    assert await folded.database.dead_letters() == [(10, "parked", 1)]


async def test_foldable_dead_letter_is_resolved_and_one_not_replayed_is_kept(
    folded: MemoryScene, rebuilds: Rebuilds
) -> None:
    await folded.database.refuse("e10")
    await folded.stream.publish(*folded.connects(10, 11), MALFORMED)
    await folded.fold()
    assert await folded.database.dead_letters() == [(10, "parked", 1), (12, "parked", 1)]
    letters = folded.database.live.dead_letters
    letters["S", 3] = replace(letters["S", 12], letter=letters["S", 12].letter)  # of an earlier stream: another time
    folded.database.refused.clear()
    assert figures(await rebuilds.rebuild()) == (1, 0, 0)
    assert await folded.database.dead_letters() == [(3, "parked", 1), (10, "resolved", 1), (12, "parked", 1)]


async def test_a_verification_settles_no_dead_letter(folded: MemoryScene, rebuilds: Rebuilds) -> None:
    await folded.database.refuse("e10")
    await folded.stream.publish(*folded.connects(10, 10))
    await folded.fold()
    folded.database.refused.clear()
    await rebuilds.verify()
    assert await folded.database.dead_letters() == [(10, "parked", 1)]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
async def test_rejected_rows_are_isolated_and_their_messages_parked(
    folded: MemoryScene, rebuilds: Rebuilds, batch_size: int
) -> None:
    folded.batch_size = batch_size
    for number in (3, 6):
        await folded.database.refuse(f"e{number}")
    report = await rebuilds.rebuild()
    assert figures(report) == (0, 2, 0)
    assert await folded.database.dead_letters() == [(3, "parked", 1), (6, "parked", 1)]
    assert sorted(await folded.database.endpoints()) == ["e1", "e2", "e4", "e5", "e7", "e8"]
    assert report.replayed == 9
    assert (await rebuilds.verify()).clean


async def test_a_trimmed_stream_is_refused_and_nothing_is_changed(folded: MemoryScene, rebuilds: Rebuilds) -> None:
    await folded.stream.trim(4)
    before = await everything(folded)
    with pytest.raises(StreamTrimmedError) as refused:
        await rebuilds.rebuild()
    assert (refused.value.first, refused.value.gone) == (4, 3)
    assert await everything(folded) == before


async def test_state_older_than_a_trimmed_stream_is_kept_and_the_rest_is_repaired(
    folded: MemoryScene, rebuilds: Rebuilds
) -> None:
    right = table(folded.database)
    await folded.stream.trim(4)
    rows = folded.database.live.endpoints
    del rows["e5"]
    rows["invented"] = Endpoint(rows["e4"].states, 4, 4)
    report = await rebuilds.rebuild(accept_trimmed=True)
    assert (figures(report), report.replayed) == ((1, 1, 0), 6)
    assert table(folded.database) == right
    assert folded.position == 9


@pytest.mark.parametrize("first", range(2, 11))
async def test_correct_table_verifies_however_far_the_stream_is_trimmed(
    folded: MemoryScene, rebuilds: Rebuilds, first: int
) -> None:
    await folded.stream.trim(first)
    assert (await rebuilds.verify(accept_trimmed=True)).clean


async def test_recreated_trimmed_stream_keeps_no_earlier_values(folded: MemoryScene, rebuilds: Rebuilds) -> None:
    await folded.stream.recreate()
    await folded.stream.publish(*folded.connects(21, 24))
    await folded.stream.trim(3)
    await rebuilds.rebuild(accept_trimmed=True)
    assert await folded.database.endpoints() == {"e23": 3, "e24": 4}
    assert folded.database.checkpoint is not None
    assert folded.database.checkpoint.stream_created_at == folded.stream.state().created_at


async def test_message_that_leaves_the_stream_before_it_is_replayed_ends_the_rebuild(
    folded: MemoryScene, rebuilds: Rebuilds
) -> None:
    async def trim(position: int) -> None:
        if position == 2:
            await folded.stream.trim(8)

    forge(folded)
    before = await everything(folded)
    rebuilds.during = trim
    with pytest.raises(DeliveryInterruptedError):
        await rebuilds.rebuild()
    assert await everything(folded) == before


async def interrupt(scene: MemoryScene) -> None:
    await scene.stream.interrupt()


async def lose_the_broker(scene: MemoryScene) -> None:
    await scene.stream.lose_connections()


async def lose_the_database(scene: MemoryScene) -> None:
    await scene.database.lose_connections()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (interrupt, DeliveryInterruptedError),
        (lose_the_broker, BrokerUnavailableError),
        (lose_the_database, DatabaseUnavailableError),
    ],
)
async def test_an_error_during_the_replay_changes_nothing(
    folded: MemoryScene,
    rebuilds: Rebuilds,
    fault: Callable[[MemoryScene], Awaitable[None]],
    error: type[TransientError],
) -> None:
    async def strike(position: int) -> None:
        if position == 4:
            await fault(folded)

    forge(folded)
    before = await everything(folded)
    rebuilds.during = strike
    with pytest.raises(error):
        await rebuilds.rebuild()
    assert await everything(folded) == before
    rebuilds.during = None
    await rebuilds.rebuild()
    assert (await rebuilds.verify()).clean


@pytest.mark.usefixtures("folded")
async def test_a_replay_keeps_rows_and_writes_them_once(rebuilds: Rebuilds, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[list[str]] = []
    save = MemoryUnitOfWork.save

    async def note_and_save(work: MemoryUnitOfWork, endpoints: Mapping[str, Endpoint]) -> None:
        saved.append(sorted(endpoints))
        await save(work, endpoints)

    monkeypatch.setattr(MemoryUnitOfWork, "save", note_and_save)
    await rebuilds.rebuild()
    assert saved == [[f"e{n}" for n in range(1, 9)]]


async def test_timed_out_final_transaction_is_retried_without_another_replay(
    folded: MemoryScene, rebuilds: Rebuilds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages arrive before each attempt, and are folded in it."""
    finish = MemoryStaging.finish

    def publish_and_finish(staging: MemoryStaging) -> Any:
        last = folded.stream.state().last
        for wire in (*folded.connects(last + 1, last + 2), folded.event("config.new-available", "e1", configId="c2")):
            folded.stream.store(wire)
        return finish(staging)

    monkeypatch.setattr(MemoryStaging, "finish", publish_and_finish)
    # Before it, the cache is flushed once. In it, each batch is a savepoint, which does not count.
    folded.database.commit_faults.extend([None, CommitFault.TIMED_OUT, CommitFault.TIMED_OUT])
    forge(folded)
    report = await rebuilds.rebuild(endpoint_id="e1")
    assert figures(report) == (1 + 6, 1, 1 + 1)
    assert (report.replayed, report.position, folded.position) == (18, 18, 18)
    assert [mention.message.position for mention in report.mentions] == [1, 9, 12, 15, 18]
    monkeypatch.undo()
    assert (await rebuilds.verify()).clean


async def test_failed_final_commit_changes_nothing_and_releases_the_checkpoint(
    folded: MemoryScene, rebuilds: Rebuilds
) -> None:
    forge(folded)
    before = await everything(folded)
    # Before it, the cache is flushed once.
    folded.database.commit_faults.extend([None, CommitFault.ROLLED_BACK])
    with pytest.raises(DatabaseUnavailableError):
        await rebuilds.rebuild()
    assert await everything(folded) == before
    assert not folded.database.lock.locked()


async def test_an_endpoint_is_shown_with_the_messages_about_it_and_no_others(
    folded: MemoryScene, rebuilds: Rebuilds
) -> None:
    forge(folded)
    report = await rebuilds.verify(endpoint_id="e1")
    assert [mention.message.position for mention in report.mentions] == [1, 9]
    assert [type(mention.event).__name__ for mention in report.mentions] == ["Connected", "ConfigAvailable"]
    assert report.differences.shown == []
    assert [row.endpoint_id for row in (await rebuilds.verify(endpoint_id="e3")).differences.shown] == ["e3"]


async def test_daemon_waits_for_the_final_transaction_and_reloads_the_changed_rows(
    folded: MemoryScene, rebuilds: Rebuilds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon holds a batch that was folded on a row that the rebuild repairs."""
    daemon = folded.follow()
    await daemon.hears("caught up at 9")
    rows = folded.database.live.endpoints
    rows["e2"] = Endpoint(rows["e3"].states, rows["e2"].last_event_seq, rows["e2"].last_event_at)
    differences = MemoryFinalTransaction.differences

    async def publish_and_compare(final: MemoryFinalTransaction, **options: Any) -> Any:
        await folded.stream.publish(folded.event("lifecycle.registered", "e2", appVersionName=""))
        await until(lambda: folded.database.lock._waiters)
        return await differences(final, **options)

    monkeypatch.setattr(MemoryFinalTransaction, "differences", publish_and_compare)
    assert figures(await rebuilds.rebuild()) == (0, 0, 1)
    await daemon.hears("caught up at 10")
    assert (await daemon.stop()).errors == []
    _, application, registration, *_ = folded.database.live.endpoints["e2"].states
    assert (application.version.value, registration.registered.position) == ("v2", 10)
