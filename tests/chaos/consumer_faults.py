"""Faults that another client causes in a daemon's consumer and its deliveries; see `faults`."""

import asyncio
from contextlib import suppress

import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from projector.stream import subjects
from tests.chaos.nats_proxy import Tampering
from tests.chaos.trial import AWAY, CONSUMER, Trial


async def consumer_deleted(trial: Trial) -> None:
    await trial.active()
    await trial.progress(trial.random.randrange(50))
    await _without_consumer(trial)


async def deliveries_stolen(trial: Trial) -> None:
    """Pull through the daemon's consumer, so that it skips messages, or delivers them twice."""
    await trial.active()
    await trial.progress(1)
    thief = await trial.client.jetstream().pull_subscribe_bind(CONSUMER, trial.stream)
    answer = trial.random.choice(("ack", "nak", "term", None))
    taken = 0
    while not taken:
        try:
            stolen = await thief.fetch(trial.random.randrange(1, 50), timeout=0.5)
        except (nats.errors.Error, nats.js.errors.Error):
            return  # the daemon has noticed and put another consumer in place of this one
        taken = len(stolen)
        if answer:
            for msg in stolen:
                await getattr(msg, answer)()
    await thief.unsubscribe()


async def consumer_moved(trial: Trial) -> None:
    """Move the consumer ahead of or before the checkpoint, while the daemon folds or while it is dead."""
    daemon = await trial.active()
    await trial.progress(trial.random.randrange(100))
    if trial.random.random() < 0.5:
        daemon.kill()
    await _consumer_at(trial, trial.random.choice((0, await trial.position() // 2, trial.published)))


async def consumer_moved_before_it_is_used(trial: Trial) -> None:
    """Move the consumer after the daemon has placed it and before its first request."""
    await trial.active()
    await trial.progress(50)
    moved = asyncio.Event()
    ahead = trial.random.random() < 0.5

    async def move() -> None:
        if moved.is_set():
            return
        with suppress(*AWAY):  # the next consumer that a daemon places is moved instead
            await _consumer_at(trial, trial.published if ahead else await trial.position() // 2)
            moved.set()

    for daemon in trial.daemons:  # one that stands by may be the next to lead
        daemon.nats.before_first_pull(move)
    await _without_consumer(trial)
    await trial.happens(moved, "the consumer is moved before it is used")
    for daemon in trial.daemons:
        daemon.nats.before_first_pull(None)
    await trial.progress(50)


async def deliveries_tampered_with(trial: Trial) -> None:
    daemon = await trial.active()
    how = trial.random.choice(list(Tampering))
    tampered = daemon.nats.tamper(how, after=trial.random.randrange(100))
    await trial.happens(tampered, f"a delivery {how.value}")


async def _consumer_at(trial: Trial, position: int) -> None:
    """Move the daemon's consumer, as only the daemon should."""
    await _without_consumer(trial)
    config = ConsumerConfig(
        durable_name=CONSUMER,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=max(1, position + 1),
        ack_policy=AckPolicy.ALL,
        ack_wait=3600,
        max_ack_pending=-1,
        filter_subjects=list(subjects.filters(groups=trial.codec.revision.groups)),
    )
    await trial.client.jetstream().add_consumer(trial.stream, config)


async def _without_consumer(trial: Trial) -> None:
    """Delete the daemon's consumer, unless the daemon is about to create it again."""
    with suppress(nats.js.errors.NotFoundError):
        await trial.client.jetstream().delete_consumer(trial.stream, CONSUMER)
