"""The comparison of the log with the table can fail."""

import pytest

from tests.chaos.trial import trial
from tests.chaos.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_change_that_is_missing_from_the_log_is_found(world: World) -> None:
    async with trial(world, 1) as made:
        await made.active()
        snapshots = made.snapshots
        assert snapshots is not None

        async def one_is_taken() -> bool:
            return snapshots.last is not None

        await made.until(one_is_taken, "a snapshot is taken")
        assert snapshots.last is not None
        kept = snapshots.last.commits
        await made.progress(200)
        await made.catch_up()
        assert await made.verdict() == []
        await made.ask("DELETE FROM endpoint_change WHERE commit_no > $1", kept)
        wrong = await snapshots.verdict(made.damaged)
        assert any(line.startswith("the log gives") for line in wrong)
        assert any(line.startswith("after commit") for line in wrong)
