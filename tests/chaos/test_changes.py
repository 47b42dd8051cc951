"""That the comparison of the log with the table can fail."""

import pytest

from tests.chaos.trial import trial
from tests.chaos.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

LATEST = "(SELECT max(commit_no) FROM endpoint_change WHERE after IS NOT NULL AND verdict = 'applied')"


async def test_a_change_that_is_missing_from_the_log_is_found(world: World) -> None:
    async with trial(world, 1) as made:
        await made.active()
        await made.progress(200)
        await made.catch_up()
        assert await made.verdict() == []
        await made.ask(f"DELETE FROM endpoint_change WHERE commit_no = {LATEST}")
        assert made.snapshots is not None
        wrong = await made.snapshots.verdict(made.damaged)
        assert any(line.startswith("the log gives") for line in wrong)
        assert any(line.startswith("after commit") for line in wrong)
