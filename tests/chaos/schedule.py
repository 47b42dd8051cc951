"""Which faults happen for a seed, and what comes of them."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random

from tests.chaos import consumer_faults, faults
from tests.chaos.trial import Trial, trial
from tests.chaos.world import World

Fault = Callable[[Trial], Awaitable[None]]

FAULTS_PER_SEED = 8
_SLOW_SHARE = 0.03

QUICK: tuple[Fault, ...] = (
    faults.commit_is_cut,
    faults.commit_is_cut,
    faults.killed_at_commit,
    faults.killed_at_commit,
    faults.killed,
    faults.restarted,
    faults.ended_while_a_commit_fails,
    faults.paused_for_a_moment,
    faults.connection_reset,
    faults.cut_within_a_message,
    faults.network_stalls_for_a_moment,
    faults.backend_terminated,
    faults.postgres_restarted,
    faults.nats_restarted,
    consumer_faults.consumer_deleted,
    consumer_faults.deliveries_stolen,
    consumer_faults.deliveries_stolen,
    consumer_faults.consumer_moved,
    consumer_faults.consumer_moved,
    consumer_faults.consumer_moved_before_it_is_used,
    consumer_faults.deliveries_tampered_with,
    faults.active_killed_with_a_standby,
    faults.two_are_active,
    faults.two_are_active,
    faults.damaged_and_rebuilt,
    faults.dead_letters_retried,
)
"""Faults that take a second or two; one that is listed twice comes twice as often."""

SLOW: tuple[Fault, ...] = (faults.paused_until_the_standby_takes_over, faults.postgres_stalls_until_it_gives_up)
"""Faults that wait for timeouts of ten seconds."""


def schedule(seed: int, *, count: int = FAULTS_PER_SEED, slow: bool = True) -> list[Fault]:
    """Return which faults happen for a seed, in order."""
    random = Random(f"schedule {seed}")  # noqa: S311 - a schedule that can be repeated is the point
    return [random.choice(SLOW if slow and random.random() < _SLOW_SHARE else QUICK) for _ in range(count)]


async def run(
    world: World, seed: int, chosen: Sequence[Fault], revision: str = "kaa-2017-04", shards: int = 1
) -> list[str]:
    """Run faults, and return how the tables differ from what the stream implies."""
    async with trial(world, seed, revision=revision, shards=shards) as made:
        for fault in chosen:
            await fault(made)
        await made.catch_up()
        return await made.verdict()
