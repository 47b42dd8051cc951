"""What a daemon reports over HTTP while it works, is blocked, or has lost a server."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import program
import pytest
from prometheus_client.parser import text_string_to_metric_families

from projector.app import supervisor as supervisor_module
from projector.app.projection import FoldedBatch, Projection
from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres
from projector.monitoring import counting as counting_module
from projector.monitoring import monitor as monitor_module
from projector.monitoring import sampler as sampler_module
from projector.monitoring import server as server_module
from projector.queries import probe as probe_module
from projector.storage import store as store_module
from projector.stream import pull as pull_module
from projector.stream import subjects
from tests.support.fixtures import Event
from tests.support.monitored import Answer, Watched, fetch, in_a_thread, watched
from tests.support.patience import PATIENCE_S
from tests.support.scene import Scene

PERIOD_S = 0.5
"""Between heartbeats, in tests that wait until some are missed."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the periods of heartbeats and samples."""
    monkeypatch.setattr(pull_module, "_IDLE_S", 0.05)
    monkeypatch.setattr(supervisor_module, "_STANDBY_POLL_S", 0.05)
    monkeypatch.setattr(supervisor_module, "_HEARTBEAT_S", 0.05)
    monkeypatch.setattr(sampler_module, "_COUNT_EVERY_S", 0.05)
    monkeypatch.setattr(counting_module, "_REST_S", 0.05)
    monkeypatch.setattr(server_module, "BIND_AGAIN_S", 0.05)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limits of samples, locks and the end of a monitor, which a busy machine exceeds."""
    monkeypatch.setattr(monitor_module, "_END_S", PATIENCE_S)
    monkeypatch.setattr(sampler_module, "_ANSWER_S", PATIENCE_S)
    monkeypatch.setattr(probe_module, "_COMMAND_TIMEOUT_S", PATIENCE_S)
    patient = dict.fromkeys(("statement_timeout", "lock_timeout"), f"{PATIENCE_S:.0f}s")
    monkeypatch.setattr(probe_module, "_SETTINGS", {**probe_module._SETTINGS, **patient})
    monkeypatch.setattr(store_module, "LEADER_SETTINGS", {**store_module.LEADER_SETTINGS, **patient})


@pytest.fixture
async def idle(scene: Scene) -> AsyncIterator[Watched]:
    async with watched(scene) as daemon:
        await daemon.daemon.hears("caught up at 0")
        yield daemon


@pytest.fixture
async def soon_red(scene: Scene) -> AsyncIterator[Watched]:
    """An idle daemon that becomes unhealthy soon after its loop is blocked."""
    async with watched(scene, heartbeat_period_s=PERIOD_S) as daemon:
        await daemon.daemon.hears("caught up at 0")
        yield daemon


def is_red(answer: Answer) -> bool:
    return answer.code == 503


def is_green(answer: Answer) -> bool:
    return answer.code == 200


async def test_an_idle_daemon_is_healthy_and_ready_for_many_heartbeats(idle: Watched) -> None:
    seen = set()
    await idle.says("/readyz", is_green)
    before = idle.daemon.recorder.heard["heartbeat"]
    while idle.daemon.recorder.heard["heartbeat"] < before + 20:
        seen |= {(await idle.get("/healthz")).code, (await idle.get("/readyz")).code}
    assert seen == {200}
    status = await idle.status()
    assert (status["lag_messages"], status["lag_seconds"], status["problems"]) == (0, 0, [])
    assert status["daemon"]["state"] == "active"


async def test_blocked_loop_is_unhealthy_until_it_runs_again(soon_red: Watched) -> None:
    await soon_red.says("/readyz", is_green)
    answer = in_a_thread(lambda: soon_red.says_soon("/healthz", is_red))
    assert answer.json["healthy"] is False
    assert answer.json["heartbeat_age_s"] >= 2 * PERIOD_S, "it is rounded"
    assert answer.json["reason"].startswith("The event loop has been blocked for")
    await soon_red.says("/healthz", is_green)


async def test_blocked_loop_is_not_ready_and_the_first_problem(soon_red: Watched) -> None:
    def look() -> tuple[Answer, Answer]:
        soon_red.says_soon("/healthz", is_red)
        return fetch(soon_red.url + "/readyz"), fetch(soon_red.url + "/status")

    await soon_red.says("/readyz", is_green)
    ready, status = in_a_thread(look)
    assert ready.code == 503
    assert status.json["problems"][0].startswith("The event loop has been blocked for")
    assert (status.json["daemon"]["healthy"], status.json["lag_messages"]) == (False, 0)


async def test_batch_that_is_never_folded_is_unhealthy(
    soon_red: Watched, scene: Scene, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> FoldedBatch:
        return await asyncio.Future()

    monkeypatch.setattr(Projection, "fold_ahead", never)
    await scene.publish(event("connectivity.connected", "e"))
    await soon_red.says("/healthz", is_red)


async def test_slow_statement_is_healthy_but_not_ready(scene: Scene, event: Event) -> None:
    async with watched(scene, ready_lag_s=0.5) as daemon:
        await daemon.daemon.hears("active")
        await daemon.says("/readyz", is_green)  # there is a sample
        connection = await asyncpg.connect(scene.database_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE endpoint_state IN EXCLUSIVE MODE")
            await scene.publish(event("connectivity.connected", "e"))
            stale = await daemon.says("/readyz", is_red)
            assert re.fullmatch(r"Lag is \d+ s, more than 0.5 s", stale.json["reason"])
            before = daemon.daemon.recorder.heard["heartbeat"]
            while daemon.daemon.recorder.heard["heartbeat"] < before + 20:
                assert (await daemon.get("/healthz")).code == 200
            problems = (await daemon.status())["problems"]
            assert len(problems) == 1
            assert problems[0].startswith("Lag is")
        await connection.close()
        await daemon.says("/readyz", is_green)


async def test_stopped_database_is_named_until_it_is_back(
    scene: Scene, spare_postgres: EmbeddedPostgres, spare_database_url: str
) -> None:
    scene.database_url = spare_database_url
    async with watched(scene) as daemon:
        await daemon.says("/readyz", is_green)
        spare_postgres.stop()
        away = "Postgres is not reachable"
        await daemon.says("/readyz", lambda answer: is_red(answer) and away in answer.json["reason"])
        await daemon.says("/readyz", lambda answer: answer.json["state"] == "retrying")
        assert (await daemon.get("/healthz")).code == 200
        status = await daemon.says("/status", lambda answer: away in (answer.json["sample_error"] or ""))
        assert away in status.json["problems"][0]
        assert status.json["checkpoint_seq"] == 0
        await daemon.says("/metrics", shows("projector_lag_messages NaN"))  # set once the connections are closed
        spare_postgres.start()
        await daemon.says("/readyz", is_green)
        await daemon.says("/status", lambda answer: answer.json["problems"] == [])
        await daemon.says("/metrics", shows("projector_reconnects_total 1.0"))


async def test_killed_broker_is_named_until_it_is_back(idle: Watched, nats_server: EmbeddedNats) -> None:
    await idle.says("/readyz", is_green)
    nats_server.kill()
    answer = await idle.says("/readyz", is_red)
    assert "NATS" in answer.json["reason"]
    assert (await idle.get("/healthz")).code == 200
    await idle.says("/status", lambda answer: answer.json["sample_error"] and answer.json["problems"])
    nats_server.start()
    await idle.says("/readyz", is_green)


async def test_paused_broker_makes_the_lag_unknown(
    idle: Watched, nats_server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    await idle.says("/readyz", is_green)
    monkeypatch.setattr(sampler_module, "_ANSWER_S", 0.3)
    nats_server.pause()
    answer = await idle.says("/readyz", is_red)
    assert "unknown" in answer.json["reason"] or answer.json["state"] == "retrying"
    monkeypatch.setattr(sampler_module, "_ANSWER_S", PATIENCE_S)
    nats_server.resume()
    await idle.says("/readyz", is_green)


async def test_standby_reports_its_state_and_takes_over(idle: Watched, scene: Scene) -> None:
    async with watched(scene) as standby:
        await standby.daemon.hears("standing by")
        answer = await standby.says("/readyz", is_green)
        assert answer.json["state"] == "standby"
        assert (await standby.get("/healthz")).code == 200
        assert (await standby.status())["daemon"]["active_since"] is None
        assert await value(standby, "projector_standby") == 1
        assert await value(standby, "projector_active") == 0
        await idle.daemon.stop()
        await standby.says("/status", lambda answer: answer.json["daemon"]["state"] == "active")
        assert await value(standby, "projector_active") == 1


async def test_daemon_folds_while_its_port_is_taken_and_listens_when_it_is_free(scene: Scene, event: Event) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = scene.follow(http=f"127.0.0.1:{port}")
        await scene.publish(event("connectivity.connected", "e"))
        await daemon.hears("committed")
        await daemon.hears("not listening")
        assert str(port) in daemon.recorder.not_listening
    await daemon.hears("listening")
    assert daemon.recorder.url == f"http://127.0.0.1:{port}"
    answer = await asyncio.to_thread(fetch, f"{daemon.recorder.url}/healthz")
    assert answer.code == 200


async def test_http_off_listens_nowhere(scene: Scene) -> None:
    daemon = scene.follow(http="off")
    await daemon.hears("active")
    await daemon.stop()
    assert daemon.recorder.url == daemon.recorder.not_listening == ""


@pytest.fixture
async def eventful(scene: Scene, event: Event) -> AsyncIterator[Watched]:
    """A daemon that has folded events of every kind, and has skipped and parked messages."""
    replica: dict[str, Any] = {"originatorReplicaId": "kpc-0", "timestamp": int(time.time() * 1000) + 90_000}
    async with watched(scene) as daemon:
        await scene.publish(
            event("lifecycle.registered", "e", appVersionName="1.0.0"),
            event("lifecycle.appversion-updated", "e", appVersionName="1.1.0"),
            event("metadata.updated", "e", added=["k"]),
            event("config.new-available", "e", configId="c"),
            event("config.updated", "e", configId="c", **replica),
            event("connectivity.connected", "e", **replica),
            event("connectivity.disconnected", endpointIds=["e"], originatorReplicaId="kpc-1"),
            (subjects.build("kpc", "connectivity.connected"), b"\xff"),
            (subjects.build("kpc", "config.unheard"), b""),
        )
        counted = {"connected": 1}  # the connect comes after the first messages, which may be a batch of their own
        await daemon.says(
            "/status", lambda answer: answer.json["checkpoint_seq"] == 9 and answer.json["by_status"] == counted
        )
        # The daemon notifies of a commit when it has acknowledged the messages.
        await daemon.says("/metrics", shows('projector_events_total{type="unknown",verdict="skipped"} 1.0'))
        yield daemon


STATUS_KEYS = """
stream stream_first_seq stream_last_seq checkpoint_seq lag_messages lag_seconds last_event_stored_at last_commit_at
endpoints dead_letters dead_letters_by_reason skipped changes_since shards publish projection_version active rebuild
daemon sampled_at sample_error by_status by_version by_config_status counted_at latest_dead_letters problems
"""
DAEMON_KEYS = """
state reason version started_at active_since heartbeat_age_s healthy ready ready_reason events_per_second
"""


async def test_status_answer_is_complete(eventful: Watched) -> None:
    status = await eventful.status()
    assert set(status) == set(STATUS_KEYS.split())
    assert set(status["daemon"]) == set(DAEMON_KEYS.split())
    assert (status["endpoints"], status["by_status"], status["by_version"], status["by_config_status"]) == (
        1,
        {"connected": 1},
        {"1.1.0": 1},
        {"applied": 1},
    )
    assert status["skipped"] == {"config.unheard": 1}
    assert status["problems"] == ["1 dead letter needs attention"]
    (letter,) = status["latest_dead_letters"]
    assert set(letter) == {"position", "reason", "detail", "subject", "parked_at"}
    assert letter["reason"] == "malformed-payload"
    for name in ("sampled_at", "counted_at", "last_commit_at", "last_event_stored_at"):
        assert status[name].endswith("+00:00"), name


async def test_the_history_has_a_point_for_each_sample(eventful: Watched) -> None:
    def has_folding(answer: Answer) -> bool:
        points = answer.json["points"]
        return len(points) > 3 and any(rate > 0 for _, rate, *_ in points)

    points = (await eventful.says("/history", has_folding)).json["points"]
    assert [len(point) for point in points] == [4] * len(points)
    assert [at for at, *_ in points] == sorted(at for at, *_ in points)
    assert points[-1][2:] == [0, 0.0]


async def test_only_get_and_head_are_allowed_and_the_page_has_a_strict_policy(eventful: Watched) -> None:
    for path in ("/", "/endpoints/e", "/healthz", "/readyz", "/status", "/history", "/metrics"):
        got, head = await eventful.get(path), await eventful.get(path, "HEAD")
        assert (got.code, head.code, head.body) == (200, 200, "")
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert [(await eventful.get(path, method)).code for method in ("POST", "PUT", "DELETE")] == [405] * 3
    page = await eventful.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"].startswith(
        "default-src 'none'; script-src 'self'; style-src 'self';"
    )
    for name, content_type in (("page.css", "text/css"), ("overview.js", "text/javascript")):
        assert (await eventful.get(f"/browser/{name}")).headers["Content-Type"] == f"{content_type}; charset=utf-8"
    for name in ("nothing", "..%2Fserver.py", "%2Fetc%2Fpasswd"):
        assert (await eventful.get(f"/browser/{name}")).code == 404
    assert (await eventful.get("/nothing")).code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "[evil", ""])
async def test_foreign_host_header_is_refused(idle: Watched, host: str) -> None:
    answer = await idle.get("/status", Host=host)
    assert answer.code in {400, 421}
    assert "lag" not in answer.body


@pytest.mark.parametrize("host", ["localhost", "localhost:9464", "127.0.0.1:1", "[::1]:9464"])
async def test_host_header_of_this_machine_is_answered(idle: Watched, host: str) -> None:
    assert (await idle.get("/status", Host=host)).code == 200


async def samples(daemon: Watched) -> dict[str, list[Any]]:
    """The samples of a scrape, by name."""
    scrape = (await daemon.get("/metrics")).body
    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


async def value(daemon: Watched, name: str, **labels: str) -> Any:
    (sample,) = [sample for sample in (await samples(daemon))[name] if labels.items() <= sample.labels.items()]
    return sample.value


def shows(sample: str) -> Callable[[Answer], bool]:
    """Return the condition that a scrape has a sample; a metric may follow a state of the daemon by a moment."""
    return lambda answer: f"\n{sample}\n" in answer.body


async def test_metrics_count_folded_skipped_and_parked_messages(eventful: Watched, nats_server: EmbeddedNats) -> None:
    nats_server.kill()
    await eventful.daemon.hears("retrying")
    nats_server.start()
    await eventful.says("/metrics", shows("projector_reconnects_total 1.0"))
    found = await samples(eventful)
    events = {
        (sample.labels["type"], sample.labels["verdict"]) for sample in found["projector_events_total"] if sample.value
    }
    assert events >= {
        *((kind, "applied") for kind in ("registered", "app_version_updated", "metadata_updated", "connected")),
        *((kind, "applied") for kind in ("config_available", "config_applied")),
        ("disconnected", "fenced"),
        ("unknown", "skipped"),
        ("unknown", "parked"),
    }
    skew = await value(eventful, "projector_clock_skew_seconds", originator="kpc", replica="kpc-0")
    assert -91 < skew < -60
    assert await value(eventful, "projector_sessions_total", result="begun") == 2
    assert await value(eventful, "projector_sessions_total", result="failed") >= 1
    assert await value(eventful, "projector_transient_errors_total", kind="BrokerUnavailableError") >= 1
    assert await value(eventful, "projector_endpoints", status="connected") == 1
    assert await value(eventful, "projector_dead_letters", reason="malformed-payload") == 1
    assert await value(eventful, "projector_info", revision="kaa-2017-04") == 1
    await eventful.says("/metrics", shows("projector_ready 1.0"))


async def test_every_metric_of_the_documents_has_a_sample_after_a_run(eventful: Watched) -> None:
    documented = {metric.name for metric in program.metrics()}
    found = {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in await samples(eventful)
    }
    assert found == documented


async def test_no_answer_shows_a_secret(scene: Scene, event: Event) -> None:
    secret = "s3cret"  # noqa: S105 - none of ours
    scene.nats_url = scene.nats_url.replace("nats://", f"nats://fleet:{secret}@")
    scene.database_url = scene.database_url.replace("postgres@", f"postgres:{secret}@")
    async with watched(scene) as daemon:
        await scene.publish(event("connectivity.connected", "e"))
        await daemon.daemon.hears("committed")
        await daemon.says("/readyz", is_green)
        api = ("/api/endpoints", "/api/endpoints/e", "/api/endpoints/e/sessions", "/endpoints/e")
        for path in ("/", "/healthz", "/readyz", "/status", "/history", "/metrics", *api):
            assert secret not in (await daemon.get(path)).body


@contextmanager
def threads_that_were_there() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert not {thread.name for thread in set(threading.enumerate()) - before} & {"monitoring"}


async def test_stopped_monitor_leaves_no_thread_or_connection(scene: Scene) -> None:
    with threads_that_were_there():
        async with watched(scene) as daemon:
            url = daemon.url
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(fetch, url + "/healthz")
