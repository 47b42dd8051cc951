"""The reader of examples/feed.py loses and repeats nothing, over kills and restarts."""

import asyncio
import os
import sys
from itertools import islice
from pathlib import Path

from projector.dev.fleet import Fleet
from projector.runtime import Projector
from projector.stream import subjects
from projector.stream.codec import Codec
from tests.support.fixtures import Event, Eventually
from tests.support.patience import PATIENCE_S
from tests.support.scene import Scene

EXAMPLE = Path(__file__).parents[2] / "examples" / "feed.py"
KILLS = 8
# In the order of writing: a short row may be stored in front of longer ones that were written earlier.
SEEN = """
SELECT commit_no, position, endpoint_id, status FROM connectivity_seen ORDER BY xmin::text::bigint, cmin::text::bigint
"""
LOGGED = """
SELECT commit_no, position, endpoint_id, after ->> 'connectivity_status' FROM endpoint_change
WHERE facet = 'connectivity' AND verdict = 'applied' ORDER BY commit_no, position, endpoint_id
"""

LOST = b"changes were dropped or not recorded before they were read: keep them for longer (PROJECTOR_CHANGES)\n"


async def start(scene: Scene) -> asyncio.subprocess.Process:
    reader = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLE), "test"),
        env=os.environ | {"PROJECTOR_DATABASE_URL": scene.database_url},
        stdout=asyncio.subprocess.PIPE,
    )
    assert reader.stdout is not None
    assert await reader.stdout.readline() == b"reading\n"
    return reader


async def kill(reader: asyncio.subprocess.Process) -> None:
    reader.kill()
    await reader.wait()


async def test_a_reader_that_is_killed_again_and_again_sees_each_change_once_and_in_order(
    scene: Scene, codec: Codec, eventually: Eventually
) -> None:
    fleet = Fleet(endpoints=40, seed=5, start_at=1_700_000_000_000, interval_ms=100).events()
    daemon = scene.follow(changes="7d", batch_size=20)
    await daemon.hears("caught up at 0")
    for number in range(KILLS + 1):
        reader = await start(scene)
        await scene.publish(
            *(
                (subjects.build(one.originator, one.event_type), codec.encode(one.event_type, one.record))
                for one in islice(fleet, 200)
            )
        )
        if number < KILLS:
            await kill(reader)  # while it reads

    async def everything_seen() -> bool:
        folded = await scene.position() == 200 * (KILLS + 1)
        return folded and len(await scene.query(SEEN)) >= len(await scene.query(LOGGED))

    await eventually(everything_seen)
    await kill(reader)
    assert await scene.query(SEEN) == await scene.query(LOGGED)
    await daemon.stop()


async def test_a_reader_follows_every_shard_and_a_change_of_their_number(
    scene: Scene, codec: Codec, eventually: Eventually
) -> None:
    fleet = Fleet(endpoints=40, seed=6, start_at=1_700_000_000_000, interval_ms=100).events()
    await scene.fold(changes="7d")
    await kill(await start(scene))
    for shards in (1, 3, 1, 2):
        await scene.nobody_leads()
        await Projector(scene.settings(changes="7d")).init(shards=shards)
        await scene.publish(
            *(
                (subjects.build(one.originator, one.event_type), codec.encode(one.event_type, one.record))
                for one in islice(fleet, 200)
            )
        )
        await scene.fold(changes="7d", batch_size=20)
    reader = await start(scene)

    async def everything_seen() -> bool:
        return len(await scene.query(SEEN)) >= len(await scene.query(LOGGED))

    await eventually(everything_seen)
    await kill(reader)
    seen = [tuple(row) for row in await scene.query(SEEN)]
    assert sorted(seen) == sorted(map(tuple, await scene.query(LOGGED)))
    positions: dict[str, list[int]] = {}
    for _, position, endpoint_id, _ in seen:
        positions.setdefault(endpoint_id, []).append(position)
    assert all(each == sorted(each) for each in positions.values())


async def test_a_reader_says_that_changes_are_missing_between_two_that_it_reads(scene: Scene, event: Event) -> None:
    await scene.fold(changes="7d")
    reader = await start(scene)
    await kill(reader)
    for settings in ({"changes": "7d"}, {}, {"changes": "7d"}):
        await scene.publish(event("connectivity.connected", "e1"))
        await scene.fold(**settings)
    reader = await start(scene)
    assert reader.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.stdout.readline() == LOST
    await kill(reader)
