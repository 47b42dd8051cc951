"""`projector dev`: servers, a simulated fleet, the daemon and a live view, in one process and one folder."""

import asyncio
import contextlib
import json
import socket
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from rich.console import Console

from projector.dev.simulation import Simulation, simulate
from projector.dev.view import Meter, View
from projector.errors import ProjectorError, SettingError
from projector.runtime import Projector
from projector.settings import CONFIG_NAME, SETTINGS, Settings, load
from projector.settings.urls import http_address

_SEED = 1
_RETENTION = "7d"
_REFRESH_S = 1.0
_PLAIN_REFRESH_S = 5.0
_QUERY_SHARE = 0.1  # largest share of the time: queries for the view must not slow down a large fleet
_PLAIN_NATS = {
    name: SETTINGS[name].default
    for name in (
        "nats_credentials",
        "nats_nkey",
        "nats_tls_ca",
        "nats_tls_certificate",
        "nats_tls_key",
        "nats_api_prefix",
    )
}
"""The embedded server needs no login, no TLS and no prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options of the demo."""

    folder: Path
    endpoints: int
    rate: float
    duration_s: float | None


async def run(plan: Plan, stop: asyncio.Event) -> None:
    """Run the demo until `stop` is set or the duration is over, and end all servers.

    Raises:
        SettingError: the `embedded` extra is not installed.
        FatalError: a server does not start, or the daemon cannot go on.
    """
    console = Console()
    async with _servers(plan.folder, console) as config:
        settings = _settings(config)
        projector = Projector(settings)
        await projector.init()
        status = await projector.status()
        if status.projection_version != projector.rules.version:
            console.print("the rows were built by another version: rebuilding the table …", highlight=False)
            await projector.rebuild()
        simulation = Simulation(endpoints=plan.endpoints, rate=plan.rate, seed=_SEED, skip=status.stream_last_seq)
        await _show(settings, simulation, View(console, config), stop, duration_s=plan.duration_s)
    console.print("stopped; the data is kept, and the next start continues from here", highlight=False)


@contextlib.asynccontextmanager
async def _servers(folder: Path, console: Console) -> AsyncIterator[Path]:
    """Start the servers, and write the settings that other commands need to reach them."""
    from projector.dev.embedded import EmbeddedNats, EmbeddedPostgres  # needs an extra

    try:
        folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs yet
    except OSError as error:
        raise SettingError(f"the folder {folder} cannot be used: {error}; choose another one with --data") from error
    console.print(f"starting NATS and Postgres in {folder} …", highlight=False)
    with EmbeddedNats(folder / "nats") as nats, EmbeddedPostgres(folder / "postgres") as postgres:
        config = folder / CONFIG_NAME
        own = f'nats_url = "{nats.url}"\ndatabase_url = "{postgres.url}"\nchanges = "{_RETENTION}"\n'
        config.write_text(own, encoding="utf-8")
        try:
            settings = _settings(config)
            with config.open("a", encoding="utf-8") as file:  # other commands do not get the environment of this one
                file.write(f'revision = "{settings.revision}"\n')
                if settings.publish is not None:
                    file.write(f"publish = {json.dumps(settings.publish, ensure_ascii=False)}\n")
            yield config
        finally:
            config.unlink(missing_ok=True)


def _settings(config: Path) -> Settings:
    """Return the settings, with the demo's own servers even if the environment names others.

    If the port for HTTP is taken, any free one is used.
    """
    own = tomllib.loads(config.read_text(encoding="utf-8"))
    servers = {name: own[name] for name in ("nats_url", "database_url")}
    settings = replace(load(servers, config=config, fallback=None), **_PLAIN_NATS)
    address = http_address(settings.http)
    if address is None:
        return settings
    try:
        socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET).close()
    except OSError:
        host = settings.http.rpartition(":")[0]
        return replace(settings, http=f"{host}:0")
    return settings


async def _show(
    settings: Settings, simulation: Simulation, view: View, stop: asyncio.Event, *, duration_s: float | None
) -> None:
    meter = Meter()
    async with Projector(settings, observers=(meter, view)) as projector:
        working = (
            asyncio.create_task(projector.run()),
            asyncio.create_task(simulate(settings, simulation, stop)),
        )
        viewing = asyncio.create_task(_view(projector, meter, view, stop))
        stopping = asyncio.create_task(stop.wait())
        everything = {*working, viewing, stopping}
        try:
            await asyncio.wait(everything, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.set()
            projector.stop()
            await asyncio.wait(everything)
    for task in (*working, viewing):
        task.result()


async def _view(projector: Projector, meter: Meter, view: View, stop: asyncio.Event) -> None:
    known = None
    with view:
        while not stop.is_set():
            began = monotonic()
            stale = None
            try:
                known = await projector.status(), await projector.census()
            except ProjectorError as error:
                stale = str(error)  # while a server is down, the view shows the last figures and the error
            if known is not None:
                view.show(*known, meter, stale=stale)
            pause_s = max(_REFRESH_S if view.live else _PLAIN_REFRESH_S, (monotonic() - began) / _QUERY_SHARE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
