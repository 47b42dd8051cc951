"""What can happen to a daemon, its connections, its servers and its consumer: each returns when it has happened.

Which ones come in which order, and their figures, follow from the seed of a trial.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import nats.errors
import nats.js.errors
from nats_proxy import Tampering
from postgres_proxy import Act, Moment, cut
from proxy import Link, Proxy, Way
from trial import CONSUMER, Trial
from world import Daemon

from projector.embedded import EmbeddedNats, EmbeddedPostgres

Fault = Callable[[Trial], Awaitable[None]]


async def commit_is_cut(trial: Trial) -> None:
    """Cut the connection before a commit, within it, while its answer is on the way, or after it."""
    await _ambush(trial, await trial.active(), cut)


async def killed_at_commit(trial: Trial) -> None:
    daemon = await trial.active()

    async def kill(link: Link) -> None:
        daemon.kill()
        link.cut()

    await _ambush(trial, daemon, kill)


async def killed(trial: Trial) -> None:
    daemon = await trial.active()
    await trial.progress(trial.random.randrange(100))
    daemon.kill()


async def restarted(trial: Trial) -> None:
    """End a daemon as an operator does, and start it with another batch size."""
    daemon = await trial.active()
    await trial.progress(trial.random.randrange(100))
    await daemon.finish()
    trial.start(daemon)


async def paused_for_a_moment(trial: Trial) -> None:
    daemon = await trial.active()
    daemon.signal(signal.SIGSTOP)
    await trial.publishes(200)
    daemon.signal(signal.SIGCONT)
    await trial.progress(1)


async def connection_reset(trial: Trial) -> None:
    daemon = await trial.active()
    await trial.progress(trial.random.randrange(50))
    for proxy in trial.random.choice(((daemon.postgres,), (daemon.nats,), (daemon.postgres, daemon.nats))):
        proxy.cut()


async def cut_within_a_message(trial: Trial) -> None:
    daemon = await trial.active()
    proxy: Proxy = trial.random.choice((daemon.postgres, daemon.nats))
    spent = proxy.cut_after(trial.random.randrange(1, 20_000), trial.random.choice(list(Way)))
    await trial.happens(spent, "a connection is cut within a message")


async def network_stalls_for_a_moment(trial: Trial) -> None:
    daemon = await trial.active()
    proxy: Proxy = trial.random.choice((daemon.postgres, daemon.nats))
    proxy.stall()
    await trial.publishes(200)
    proxy.release()
    await trial.progress(1)


async def backend_terminated(trial: Trial) -> None:
    await trial.active()
    await trial.progress(trial.random.randrange(50))
    await trial.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'projector writer%' AND datname = current_database()"
    )


async def postgres_restarted(trial: Trial) -> None:
    await _restart(trial, trial.world.postgres)


async def nats_restarted(trial: Trial) -> None:
    await _restart(trial, trial.world.nats)


async def consumer_deleted(trial: Trial) -> None:
    await trial.active()
    await trial.progress(trial.random.randrange(50))
    await trial.without_consumer()


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
        for msg in stolen if answer else ():
            await getattr(msg, answer)()
    await thief.unsubscribe()


async def consumer_moved(trial: Trial) -> None:
    """Put the consumer ahead of the checkpoint or behind it, while the daemon works or while it is dead."""
    daemon = await trial.active()
    await trial.progress(trial.random.randrange(100))
    if trial.random.random() < 0.5:
        daemon.kill()
    await trial.consumer_at(trial.random.choice((0, await trial.position() // 2, trial.published)))


async def consumer_moved_before_it_is_used(trial: Trial) -> None:
    """Put the consumer elsewhere between the moment when the daemon has placed it and its first request to it."""
    daemon = await trial.active()
    await trial.progress(50)
    moved = asyncio.Event()
    ahead = trial.random.random() < 0.5

    async def move() -> None:
        await trial.consumer_at(trial.published if ahead else await trial.position() // 2)
        moved.set()

    daemon.nats.before_first_pull(move)
    await trial.without_consumer()
    await trial.happens(moved, "the consumer is moved before it is used")
    await trial.progress(50)


async def deliveries_tampered_with(trial: Trial) -> None:
    daemon = await trial.active()
    how = trial.random.choice(list(Tampering))
    tampered = daemon.nats.tamper(how, after=trial.random.randrange(100))
    await trial.happens(tampered, f"a delivery {how.value}")


async def active_killed_with_a_standby(trial: Trial) -> None:
    daemon = await trial.active()
    standby = await _stand_by(trial, daemon)
    await trial.progress(trial.random.randrange(50))
    daemon.kill()
    await trial.until(lambda: trial.is_led_by(standby), "the standby takes over")


async def two_are_active(trial: Trial) -> None:
    """Have the lock granted twice: only the compare-and-set keeps two daemons from folding the same events."""
    daemon = await trial.active()
    second = await _other(trial, daemon)
    second.postgres.lies = True
    trial.start(second, consumer="the-second")
    await trial.happens(second.postgres.lied, "the second daemon is told that it leads")
    await trial.progress(trial.random.randrange(200, 1000))
    await trial.random.choice((daemon, second)).finish()
    second.kill()
    second.postgres.lies = False


async def paused_until_the_standby_takes_over(trial: Trial) -> None:
    """Pause the active daemon, between two batches or at a commit, and wake it when another one works."""
    daemon = await trial.active()
    standby = await _stand_by(trial, daemon)

    async def pause(link: Link) -> None:
        del link
        daemon.signal(signal.SIGSTOP)

    await _ambush(trial, daemon, pause)
    await trial.until(lambda: trial.is_led_by(standby), "the standby takes over")
    daemon.signal(signal.SIGCONT)
    await trial.progress(200)
    await trial.until(lambda: trial.is_led_by(standby), "the one that was paused stands by")


async def postgres_stalls_until_it_gives_up(trial: Trial) -> None:
    """Let no byte pass between daemon and Postgres for so long that Postgres ends the session."""
    daemon = await trial.active()

    async def stall(link: Link) -> None:
        del link
        daemon.postgres.stall()

    await _ambush(trial, daemon, stall)

    async def nobody_leads() -> bool:
        found = await trial.ask("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted")
        return not found

    await trial.until(nobody_leads, "Postgres has ended the session")
    daemon.postgres.release()
    await trial.progress(1)


QUICK: tuple[Fault, ...] = (
    commit_is_cut,
    commit_is_cut,
    killed_at_commit,
    killed_at_commit,
    killed,
    restarted,
    paused_for_a_moment,
    connection_reset,
    cut_within_a_message,
    network_stalls_for_a_moment,
    backend_terminated,
    postgres_restarted,
    nats_restarted,
    consumer_deleted,
    deliveries_stolen,
    deliveries_stolen,
    consumer_moved,
    consumer_moved,
    consumer_moved_before_it_is_used,
    deliveries_tampered_with,
    active_killed_with_a_standby,
    two_are_active,
    two_are_active,
)
"""Those that take a second or two; one that stands here twice comes twice as often."""

SLOW: tuple[Fault, ...] = (paused_until_the_standby_takes_over, postgres_stalls_until_it_gives_up)
"""Those that wait for timeouts of ten seconds."""


async def _ambush(trial: Trial, daemon: Daemon, act: Act) -> None:
    ambush = daemon.postgres.ambush(trial.random.randrange(1, 8), trial.random.choice(list(Moment)), act)
    await trial.happens(ambush.sprung, f"something happens {ambush.moment.value}")


async def _restart(trial: Trial, server: EmbeddedNats | EmbeddedPostgres) -> None:
    await trial.active()
    await trial.progress(trial.random.randrange(50))
    end = trial.random.choice((server.kill, server.stop))
    await asyncio.to_thread(end)
    await asyncio.to_thread(server.start)
    await trial.progress(1)


async def _other(trial: Trial, daemon: Daemon) -> Daemon:
    """Return the daemon that is not this one, not running."""
    (other,) = (candidate for candidate in trial.daemons if candidate is not daemon)
    other.kill()
    return other


async def _stand_by(trial: Trial, daemon: Daemon) -> Daemon:
    """Start a second daemon, and wait until it knows that it is the second."""
    standby = await _other(trial, daemon)
    trial.start(standby)

    async def is_connected() -> bool:
        return bool(
            await trial.ask(
                "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE '%:' || $1::text", str(standby.pid)
            )
        )

    await trial.until(is_connected, "the standby has connected")
    return standby
