"""`projector dev`: servers, a simulated fleet, the daemon and a live view, in one process and one folder."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from rich.console import Console

from projector.app.observers import Observers
from projector.cli.process import stopped_by_signals
from projector.dev.simulation import Simulation
from projector.dev.view import Meter, View
from projector.errors import ProjectorError
from projector.runtime import Runtime
from projector.settings import CONFIG_NAME, load

_SEED = 1
_REFRESH_S = 1.0
_PLAIN_REFRESH_S = 5.0
_QUERY_SHARE = 0.1  # of the time at most, so that a large fleet is not slowed down by being looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to show."""

    folder: Path
    endpoints: int
    rate: float
    duration_s: float | None


async def run(plan: Plan) -> None:
    """Show it until SIGTERM, SIGINT or the end of the duration; nothing is left running.

    Raises:
        SettingError: the `embedded` extra is not installed.
        FatalError: the servers do not start, or the daemon could not go on.
    """
    console = Console()
    stop = asyncio.Event()
    with stopped_by_signals(stop.set):
        async with _servers(plan.folder, console) as config:
            runtime = Runtime(load({}, config=config, fallback=None))
            await runtime.init()
            if await runtime.is_of_other_rules():
                console.print("the data is of another version: rebuilding the table …", highlight=False)
                await runtime.rebuild(lambda *_: None, apply=True)
            await _show(runtime, plan, View(console, config), stop)
    console.print("stopped; the data is kept, and the next start goes on from here", highlight=False)


@contextlib.asynccontextmanager
async def _servers(folder: Path, console: Console) -> AsyncIterator[Path]:
    """Start the servers, and write down for other commands how to reach them."""
    from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres  # noqa: PLC0415 - comes with an extra

    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs yet
    console.print(f"starting NATS and Postgres in {folder} …", highlight=False)
    with EmbeddedNats(folder / "nats") as nats, EmbeddedPostgres(folder / "postgres") as postgres:
        config = folder / CONFIG_NAME
        config.write_text(f'nats_url = "{nats.url}"\ndatabase_url = "{postgres.url}"\n', encoding="utf-8")
        try:
            yield config
        finally:
            config.unlink(missing_ok=True)


async def _show(runtime: Runtime, plan: Plan, view: View, stop: asyncio.Event) -> None:
    meter = Meter()
    simulation = Simulation(
        endpoints=plan.endpoints, rate=plan.rate, seed=_SEED, skip=(await runtime.status()).stream_last_seq
    )
    monitor = runtime.monitor(listening=view.show_page, refused=view.show_page, or_any_port=True)
    with monitor or contextlib.nullcontext():
        live = runtime.live(Observers((meter, *(monitor.observers if monitor else ()))))
        working = (asyncio.create_task(live.run()), asyncio.create_task(runtime.simulate(simulation, stop)))
        viewing = asyncio.create_task(_view(runtime, meter, view, stop))
        stopping = asyncio.create_task(stop.wait())
        everything = {*working, viewing, stopping}
        try:
            await asyncio.wait(everything, timeout=plan.duration_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.set()
            live.stop()
            await asyncio.wait(everything)
    for task in (*working, viewing):
        task.result()


async def _view(runtime: Runtime, meter: Meter, view: View, stop: asyncio.Event) -> None:
    known = None
    with view:
        while not stop.is_set():
            began = monotonic()
            wrong = None
            try:
                known = await runtime.status(), await runtime.census()
            except ProjectorError as error:
                wrong = str(error)  # while a server is away, the view shows what it last knew, and says so
            if known is not None:
                view.show(*known, meter, wrong=wrong)
            pause_s = max(_REFRESH_S if view.live else _PLAIN_REFRESH_S, (monotonic() - began) / _QUERY_SHARE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
