"""The projector embedded in a program."""

import asyncio
import gc
import os
import signal
import sys
import threading
from pathlib import Path

import prometheus_client
import pytest
import structlog

from projector import CaughtUp, Notification, Observer, Projector, Settings
from tests.support.fixtures import Event, Eventually
from tests.support.patience import PATIENCE_S
from tests.support.scene import Recorder, Scene

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed.py"


async def until(recorder: Recorder, what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await recorder.hears(what)


async def test_program_queries_rebuilds_and_waits_during_a_run(scene: Scene, event: Event) -> None:
    async with Projector(scene.settings()) as projector:
        running = asyncio.create_task(projector.run())
        position = await scene.publish(event("connectivity.connected", "e"))
        assert (await projector.wait(position, timeout_s=PATIENCE_S)).reached
        await scene.query("UPDATE endpoint_state SET app_version = 'wrong'")
        assert not (await projector.verify()).clean
        assert (await projector.rebuild()).differences.different == 1
        assert (await projector.verify()).clean
        assert (await projector.status()).endpoints == 1
        projector.stop()
        await running


async def test_several_projectors_run_in_one_event_loop(scene: Scene, event: Event, other_database_url: str) -> None:
    position = await scene.publish(*(event("connectivity.connected", f"e{number}") for number in range(10)))
    urls = (scene.database_url, other_database_url)
    projectors = [Projector(scene.settings(url, consumer=f"consumer-{n}")) for n, url in enumerate(urls)]
    async with projectors[0], projectors[1], asyncio.TaskGroup() as tasks:
        for projector in projectors:
            tasks.create_task(projector.run())
        for projector in projectors:
            assert (await projector.wait(position, timeout_s=PATIENCE_S)).reached
            projector.stop()
    assert await scene.table() == await scene.table(other_database_url)


async def test_leaving_the_block_stops_run_and_waits_for_its_end(scene: Scene, eventually: Eventually) -> None:
    connected = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^projector'"
    recorder = Recorder()

    async def none_is_connected() -> bool:
        return await scene.query(connected) == []

    async with Projector(scene.settings(http="127.0.0.1:0"), observers=(recorder,)) as projector:
        running = asyncio.create_task(projector.run())
        await until(recorder, "active")
        await until(recorder, "listening")
    assert running.done()
    await running
    await eventually(none_is_connected)  # the server notices a moment later


async def test_leaving_the_block_by_an_error_raises_that_error(scene: Scene) -> None:
    recorder = Recorder()

    async def use() -> None:
        async with Projector(scene.settings(), observers=(recorder,)) as projector:
            tasks.append(asyncio.create_task(projector.run()))
            await until(recorder, "active")
            raise KeyError("of the program")

    tasks: list[asyncio.Task[None]] = []
    with pytest.raises(KeyError, match="of the program"):
        await use()
    await asyncio.gather(*tasks)


async def test_a_stopped_projector_does_not_run_again_and_a_running_one_not_twice(scene: Scene) -> None:
    recorder = Recorder()
    async with Projector(scene.settings(), observers=(recorder,)) as projector:
        running = asyncio.create_task(projector.run())
        await until(recorder, "active")
        with pytest.raises(RuntimeError, match="running already"):
            await projector.run()
        projector.stop()
        await running
        await projector.run()
    assert recorder.heard["active"] == 1


async def test_an_observer_is_called_on_the_event_loop_of_the_projector(scene: Scene) -> None:
    threads: set[int] = set()

    class Where(Observer):
        def notify(self, notification: Notification) -> None:
            del notification
            threads.add(threading.get_ident())

    recorder = Recorder()
    async with Projector(scene.settings(http="127.0.0.1:0"), observers=(Where(), recorder)) as projector:
        running = asyncio.create_task(projector.run())
        await until(recorder, "listening")
        projector.stop()
        await running
    assert threads == {threading.get_ident()}


async def test_no_process_wide_state_is_changed(scene: Scene, event: Event) -> None:
    def shared() -> object:
        return (
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
            gc.isenabled(),
            gc.get_threshold(),
            gc.get_freeze_count(),
            structlog.get_config(),
            prometheus_client.metrics._use_created,
            {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        )

    await scene.publish(event("connectivity.connected", "e"))
    before = shared()
    during: list[object] = []

    class Look(Observer):
        def notify(self, notification: Notification) -> None:
            if isinstance(notification, CaughtUp):
                during.append(shared())

    projector = Projector(scene.settings(http="127.0.0.1:0"), observers=(Look(),))
    await projector.run(until_caught_up=True)
    await projector.rebuild()
    assert [before] == during
    assert shared() == before


async def test_a_projector_that_waits_for_a_server_prints_and_logs_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    settings = Settings(database_url="postgresql://127.0.0.1:1/x", nats_url="nats://127.0.0.1:1", http="off")
    async with Projector(settings, observers=(recorder,)) as projector:
        running = asyncio.create_task(projector.run())
        async with asyncio.timeout(PATIENCE_S):
            await recorder.hears("retrying", 3)
        projector.stop()
        await running
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


async def test_the_example_runs(scene: Scene, event: Event, tmp_path: Path) -> None:
    await scene.publish(*(event("connectivity.connected", f"e{number}") for number in range(3)))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        cwd=tmp_path,
        env={**os.environ, "PROJECTOR_NATS_URL": scene.nats_url, "PROJECTOR_DATABASE_URL": scene.database_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.decode().splitlines()[-1] == "3 endpoints"
