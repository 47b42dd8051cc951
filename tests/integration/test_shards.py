"""A projection with several shards keeps the table that one with a single shard keeps."""

from dataclasses import asdict
from random import Random

import asyncpg
import pytest
from nats.aio.client import Client

from projector.app import dead_letters as dead_letters_module
from projector.app.rebuild import Report
from projector.domain.messages import Selection
from projector.domain.shards import shard_of
from projector.errors import DatabaseRefusedError, EventsLostError, ProjectorRunningError, RetryTooEarlyError
from projector.runtime import Projector
from projector.storage.locks import LEADER_LOCK
from projector.stream import subjects
from tests.support.fixtures import Event, Eventually, Rows, Wire
from tests.support.memory.life import life
from tests.support.scene import Scene

MALFORMED: Wire = (subjects.build("kpc", "connectivity.connected"), b"\xff")
UNKNOWN: Wire = (subjects.build("kpc", "config.future"), b"")
ENDPOINTS = 40


def some_life(event: Event, seed: int, count: int = 600) -> list[Wire]:
    return life(event, Random(seed), count, endpoints=ENDPOINTS)  # noqa: S311 - not a secret


async def divide(scene: Scene, shards: int) -> None:
    await scene.nobody_leads()
    await Projector(scene.settings()).init(shards=shards)


async def verified(scene: Scene) -> Report:
    report = await Projector(scene.settings()).verify(show=5)
    assert report.clean, report.differences
    return report


async def checkpoints(scene: Scene) -> Rows:
    return await scene.query("SELECT shard, shards, position FROM projector_checkpoint ORDER BY shard")


async def undivided(scene: Scene, url: str) -> tuple[Rows, Rows]:
    """Return the rows and the dead letters that a projection with one shard has."""
    await scene.fold(url=url)
    return await scene.table(url), await scene.ask(url, "SELECT position, reason FROM dead_letter ORDER BY position")


async def folded(scene: Scene, eventually: Eventually, position: int) -> None:
    """Wait until every shard has folded a position."""

    async def is_folded() -> bool:
        return all(row[2] >= position for row in await checkpoints(scene))

    await eventually(is_folded)


async def test_shards_together_keep_the_same_table_and_dead_letters(
    scene: Scene, event: Event, other_database_url: str
) -> None:
    await divide(scene, 3)
    await scene.publish(*some_life(event, 1), *[UNKNOWN] * 7)
    await scene.fold()
    assert (await scene.table(), await scene.dead_letters()) == await undivided(scene, other_database_url)
    status = await Projector(scene.settings()).status()
    assert (status.lag_messages, [one["shard"] for one in status.shards]) == (0, [0, 1, 2])
    assert asdict(status)["skipped"] == {"config.future": 7}
    await verified(scene)


async def test_workers_share_the_shards_and_take_over(scene: Scene, event: Event, eventually: Eventually) -> None:
    await divide(scene, 3)
    first = scene.follow()
    await first.hears("active", 3)
    second = scene.follow()
    await second.hears("active", 1)
    await folded(scene, eventually, await scene.publish(*some_life(event, 2)))
    await first.stop()
    await second.hears("active", 3)
    await folded(scene, eventually, await scene.publish(*some_life(event, 3)))
    await second.stop()
    await verified(scene)


async def test_the_number_of_shards_can_change_with_events_in_between(
    scene: Scene, event: Event, other_database_url: str
) -> None:
    for seed, shards in enumerate((1, 3, 2, 5, 1)):
        await divide(scene, shards)
        await scene.publish(*some_life(event, seed, 200))
        await scene.fold()
    assert (await scene.table(), await scene.dead_letters()) == await undivided(scene, other_database_url)
    assert [row[:2] for row in await checkpoints(scene)] == [(0, 1)]
    await verified(scene)


async def test_shards_that_stopped_apart_are_brought_together_first(
    scene: Scene, event: Event, other_database_url: str
) -> None:
    await divide(scene, 3)
    await scene.publish(*some_life(event, 7, 200))
    await scene.fold()
    before = await checkpoints(scene)
    await scene.publish(*some_life(event, 8, 200))
    await scene.fold()
    # What shard 1 has folded since is undone, as if it had been led by a machine that was lost.
    last = max(row[2] for row in before)
    await scene.query("DELETE FROM dead_letter WHERE position > $1 AND position % 3 = 1", last)
    for row in await scene.table():
        if shard_of(row[0], 3) == 1:
            await scene.query("DELETE FROM endpoint_state WHERE endpoint_id = $1", row[0])
    await scene.query(
        "UPDATE projector_checkpoint SET position = 0, anchor_stored_at = NULL, anchor_hash = NULL, "
        "skipped = '{}' WHERE shard = 1"
    )
    await divide(scene, 2)
    await scene.fold(url=other_database_url)
    assert (await scene.table(), len(await checkpoints(scene))) == (await scene.table(other_database_url), 2)
    await verified(scene)


async def test_a_shard_that_lost_events_keeps_the_number_of_shards(
    scene: Scene, event: Event, nats_client: Client
) -> None:
    await divide(scene, 2)
    await scene.publish(*some_life(event, 9, 50))
    await scene.fold()
    await scene.query(
        "UPDATE projector_checkpoint SET position = 3, anchor_stored_at = NULL, anchor_hash = NULL WHERE shard = 1"
    )
    await nats_client.jetstream().purge_stream(scene.stream, seq=20)
    with pytest.raises(EventsLostError):
        await divide(scene, 3)
    assert [row[:2] for row in await checkpoints(scene)] == [(0, 2), (1, 2)]


async def test_the_number_of_shards_does_not_change_while_a_projector_runs(scene: Scene) -> None:
    await scene.fold()
    one = scene.follow()
    await one.hears("active")
    with pytest.raises(ProjectorRunningError, match=r"projector writer .+:\d+, backend process \d+"):
        await Projector(scene.settings()).init(shards=2)
    await one.stop()
    await divide(scene, 2)
    many = scene.follow()
    await many.hears("active", 2)
    with pytest.raises(ProjectorRunningError, match=r"projector worker .+:\d+, backend process \d+"):
        await Projector(scene.settings()).init(shards=3)


async def test_rebuild_beside_workers_repairs_every_shard(scene: Scene, event: Event, eventually: Eventually) -> None:
    await divide(scene, 3)
    daemon = scene.follow(changes="1d")
    await daemon.hears("active", 3)
    await folded(scene, eventually, await scene.publish(*some_life(event, 4)))
    expected = await scene.table()
    await scene.query("UPDATE endpoint_state SET app_version = 'by hand' WHERE endpoint_id IN ('e1', 'e2', 'e3', 'e4')")
    await scene.query("DELETE FROM endpoint_state WHERE endpoint_id IN ('e5', 'e6')")
    report = await Projector(scene.settings(changes="1d")).rebuild()
    assert (report.differences.different, report.differences.missing) == (4, 2)
    assert await scene.table() == expected
    corrected = await scene.query(
        "SELECT DISTINCT endpoint_id, shard FROM endpoint_change WHERE verdict = 'corrected' ORDER BY 1"
    )
    assert [tuple(row) for row in corrected] == [(f"e{n}", shard_of(f"e{n}", 3)) for n in range(1, 7)]
    await folded(scene, eventually, await scene.publish(*some_life(event, 5)))
    await daemon.stop()
    await verified(scene)


async def test_rebuild_without_workers_goes_to_the_end_of_the_stream(scene: Scene, event: Event) -> None:
    await divide(scene, 3)
    last = await scene.publish(*some_life(event, 6), event("connectivity.connected", "e"))
    report = await Projector(scene.settings()).rebuild()
    assert (report.position, [row[2] for row in await checkpoints(scene)]) == (last, [last] * 3)
    await verified(scene)


async def test_a_retried_message_is_folded_into_every_shard(scene: Scene, event: Event) -> None:
    await divide(scene, 3)
    names = [f"e{number}" for number in range(9)]
    await scene.query("ALTER TABLE endpoint_state ADD CONSTRAINT refused CHECK (endpoint_id <> 'e1')")
    await scene.publish(event("connectivity.disconnected", "e1", endpointIds=names))
    await scene.fold(changes="1d")
    refused = shard_of("e1", 3)
    assert (await Projector(scene.settings()).verify()).clean
    assert [row[0] for row in await scene.table()] == [n for n in names if shard_of(n, 3) != refused]
    await scene.query("ALTER TABLE endpoint_state DROP CONSTRAINT refused")
    retried = [one async for one in Projector(scene.settings()).retry_dead_letters(Selection())]
    assert [one.parked_again for one in retried] == [None]
    assert [row[0] for row in await scene.table()] == names
    await verified(scene)


async def test_a_message_that_is_rejected_again_is_folded_into_the_shards_that_accept_it(
    scene: Scene, event: Event
) -> None:
    await divide(scene, 3)
    names = [f"e{number}" for number in range(9)]
    await scene.query("ALTER TABLE endpoint_state ADD CONSTRAINT refused CHECK (endpoint_id NOT LIKE 'e%')")
    await scene.publish(event("connectivity.disconnected", "e1", endpointIds=names))
    await scene.fold(changes="1d")
    assert await scene.table() == []
    await scene.query("ALTER TABLE endpoint_state DROP CONSTRAINT refused")
    await scene.query("ALTER TABLE endpoint_state ADD CONSTRAINT refused CHECK (endpoint_id <> 'e1')")
    daemon = scene.follow(changes="1d")
    await daemon.hears("active", 3)
    retried = [one async for one in Projector(scene.settings()).retry_dead_letters(Selection())]
    assert all(one.parked_again for one in retried)
    accepted = [name for name in names if shard_of(name, 3) != shard_of("e1", 3)]
    assert [row[0] for row in await scene.table()] == accepted
    await scene.publish(event("connectivity.disconnected", "e2", endpointIds=names[2:]))
    await daemon.stop()
    await scene.fold(changes="1d")
    await verified(scene)


async def test_a_dead_letter_that_a_shard_has_not_come_to_is_not_retried(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters_module, "_ATTEMPTS", 2)
    await divide(scene, 2)
    await scene.publish(MALFORMED)
    await scene.fold()
    await scene.query("UPDATE projector_checkpoint SET position = 0 WHERE shard = 1")
    with pytest.raises(RetryTooEarlyError, match="up to position 0 only; start a projector"):
        await anext(Projector(scene.settings()).retry_dead_letters(Selection()))


async def test_a_message_that_a_rebuild_resolved_is_parked_by_a_shard_that_was_behind(
    scene: Scene, event: Event
) -> None:
    await divide(scene, 2)
    names = [next(f"e{n}" for n in range(9) if shard_of(f"e{n}", 2) == shard) for shard in (0, 1)]
    await scene.query("ALTER TABLE endpoint_state ADD CONSTRAINT refused CHECK (endpoint_id NOT LIKE 'e%')")
    await scene.publish(event("connectivity.disconnected", "e", endpointIds=names))
    await scene.fold()
    await scene.query(
        "UPDATE projector_checkpoint SET position = 0, anchor_stored_at = NULL, anchor_hash = NULL WHERE shard = 1"
    )
    await scene.query("ALTER TABLE endpoint_state DROP CONSTRAINT refused")
    leader = await asyncpg.connect(scene.database_url)
    await leader.execute("SELECT pg_advisory_lock(hashtextextended($1, 1))", LEADER_LOCK)
    await Projector(scene.settings()).rebuild()
    await leader.close()
    assert [row[0] for row in await scene.table()] == names[:1]
    assert await scene.query("SELECT state FROM dead_letter") == [("resolved",)]
    await scene.query(f"ALTER TABLE endpoint_state ADD CONSTRAINT refused CHECK (endpoint_id <> '{names[1]}')")
    await scene.fold()
    assert await scene.query("SELECT state, closed_at FROM dead_letter") == [("parked", None)]
    await verified(scene)


async def test_a_missing_checkpoint_of_a_shard_is_named(scene: Scene) -> None:
    await divide(scene, 3)
    await scene.publish(MALFORMED)
    await scene.fold()
    await scene.query("DELETE FROM projector_checkpoint WHERE shard = 1")
    projector = Projector(scene.settings())
    with pytest.raises(DatabaseRefusedError, match="2 rows for 3 shards"):
        await projector.verify()
    with pytest.raises(DatabaseRefusedError, match="2 rows for 3 shards"):
        await anext(projector.retry_dead_letters(Selection()))


async def test_malformed_messages_are_parked_once(scene: Scene) -> None:
    await divide(scene, 4)
    await scene.publish(*[MALFORMED] * 10)
    await scene.fold()
    assert [row[0] for row in await scene.dead_letters()] == list(range(1, 11))
    assert {row[0] for row in await scene.query("SELECT attempts FROM dead_letter")} == {1}
