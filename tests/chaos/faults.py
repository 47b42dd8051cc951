"""What can happen to a daemon, its connections, its servers and its tables: each returns when it has happened.

The figures follow from the seed of the trial.
"""

import asyncio
import signal

from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres
from tests.chaos.cluster import NatsCluster
from tests.chaos.postgres_proxy import Act, Moment, cut
from tests.chaos.proxy import Link, Proxy, Way
from tests.chaos.trial import Trial
from tests.chaos.world import Daemon


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
    """Stop a daemon as an operator does, and start it with another batch size."""
    daemon = await trial.active()
    await trial.progress(trial.random.randrange(100))
    await trial.finish(daemon)
    trial.start(daemon)
    await trial.active()


async def ended_while_a_commit_fails(trial: Trial) -> None:
    """Stop a daemon while it waits for the answer to a commit from a server that is gone."""
    daemon = await trial.active()

    async def end(link: Link) -> None:
        daemon.signal(signal.SIGTERM)
        # It may have ended already: Postgres ends the session if this takes long.
        await trial.until(lambda: daemon.has_logged("stopping"), "a daemon that is asked to end says so")
        daemon.postgres.away = True
        link.cut()

    ambush = daemon.postgres.ambush(1, Moment.BEFORE, end)
    await trial.happens(ambush.sprung, "a daemon is asked to end before a commit")
    await daemon.finish()
    daemon.postgres.away = False


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
    count, way = trial.random.randrange(1, 20_000), trial.random.choice(list(Way))
    if proxy is daemon.nats and way is Way.TO_SERVER:
        count = 1 + count // 10  # large batches need few requests and acknowledgements
    spent = proxy.cut_after(count, way)
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


async def active_killed_with_a_standby(trial: Trial) -> None:
    daemon = await trial.active()
    standby = await _stand_by(trial, daemon)
    await trial.progress(trial.random.randrange(50))
    daemon.kill()
    await trial.until(lambda: trial.is_led_by(standby), "the standby takes over")


async def two_are_active(trial: Trial) -> None:
    """Grant the lock twice: only the compare-and-set keeps two daemons from folding the same events."""
    daemon = await trial.active()
    second = await _other(trial, daemon)
    lied = second.postgres.lie()
    trial.start(second, consumer="the-second")
    await trial.happens(lied, "the second daemon is told that it leads")
    await trial.progress(trial.random.randrange(100, 500))
    await trial.finish(trial.random.choice((daemon, second)))
    second.kill()
    second.postgres.lie_no_more()


async def paused_until_the_standby_takes_over(trial: Trial) -> None:
    """Pause the active daemon, between two batches or at a commit, and resume it once another one leads."""
    daemon = await trial.active()
    standby = await _stand_by(trial, daemon)

    async def pause(link: Link) -> None:
        del link
        daemon.signal(signal.SIGSTOP)

    await _ambush(trial, daemon, pause)
    await trial.until(lambda: trial.is_led_by(standby), "the standby takes over")
    daemon.signal(signal.SIGCONT)
    await trial.progress(200)
    # Once resumed, it receives what it had requested, which the other one then misses, so both begin a new session.
    await trial.active()


async def postgres_stalls_until_it_gives_up(trial: Trial) -> None:
    """Stall the connection between daemon and Postgres until Postgres ends the session."""
    daemon = await trial.active()

    async def stall(link: Link) -> None:
        del link
        daemon.postgres.stall()

    await _ambush(trial, daemon, stall)

    async def leads_no_more() -> bool:
        return not await trial.is_led_by(daemon)

    await trial.until(leads_no_more, "Postgres has ended the session")
    daemon.postgres.release()
    await trial.progress(1)


async def damaged_and_rebuilt(trial: Trial) -> None:
    """Change rows by hand, and rebuild the table while the daemon folds."""
    await trial.active()
    await trial.progress(50)
    for damage in (
        "DELETE FROM endpoint_state",
        "UPDATE endpoint_state SET app_version = 'wrong', metadata_registers = NULL, last_event_seq = 1",
    ):
        rows = await trial.ask(
            f"{damage} WHERE endpoint_id = (SELECT endpoint_id FROM endpoint_state ORDER BY random() LIMIT 1) "
            "RETURNING endpoint_id"
        )
        trial.damaged.update(row["endpoint_id"] for row in rows)
    await trial.projector("rebuild")


async def dead_letters_retried(trial: Trial) -> None:
    """Retry dead letters that every shard has passed and that still cannot be folded, while the daemon folds."""
    await trial.active()
    await trial.progress(50)
    parked = await trial.ask(
        "SELECT position FROM dead_letter WHERE position <= (SELECT min(position) FROM projector_checkpoint) "
        "ORDER BY random() LIMIT 5"
    )
    positions = [row["position"] for row in parked]
    if positions:
        await trial.projector("dead-letters", "retry", *map(str, positions), expect=1)
        trial.tried_again.update(positions)


async def _ambush(trial: Trial, daemon: Daemon, act: Act) -> None:
    ambush = daemon.postgres.ambush(trial.random.randrange(1, 8), trial.random.choice(list(Moment)), act)
    await trial.happens(ambush.sprung, f"something happens {ambush.moment.value}")


async def _restart(trial: Trial, server: EmbeddedNats | NatsCluster | EmbeddedPostgres) -> None:
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
