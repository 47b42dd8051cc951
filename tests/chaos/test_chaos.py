"""A short run of what `make chaos` does at length."""

import pytest

from tests.chaos.consumer_faults import consumer_moved_before_it_is_used
from tests.chaos.faults import two_are_active
from tests.chaos.schedule import Fault, run, schedule
from tests.chaos.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEDS = [(1, "kaa-2017-04"), (2, "kaa-2020-05")]


@pytest.mark.parametrize(("seed", "revision"), SEEDS)
async def test_faults_do_not_change_the_resulting_tables(world: World, seed: int, revision: str) -> None:
    chosen = schedule(seed, count=4, slow=False)
    wrong = await run(world, seed, chosen, revision)
    assert not wrong, f"seed {seed}: {', '.join(fault.__name__ for fault in chosen)}"


@pytest.mark.parametrize("fault", [consumer_moved_before_it_is_used, two_are_active])
async def test_fault_neither_loses_nor_repeats_messages(world: World, fault: Fault) -> None:
    assert not await run(world, 0, [fault])
