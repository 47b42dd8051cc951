"""Commands to try the projector out on one machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from projector.cli import event_loop
from projector.cli.options import with_settings
from projector.resources import data_folder
from projector.settings import Settings

if TYPE_CHECKING:
    from projector.dev.demo import Plan
    from projector.dev.simulation import Simulation


@with_settings
def simulate(  # noqa: PLR0913, PLR0917 - each is an option
    settings: Settings,
    endpoints: Annotated[int, typer.Option(min=1, help="Size of the fleet.")] = 1000,
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0: no limit.")] = 50,
    events: Annotated[int | None, typer.Option(min=0, help="Number of events.", show_default="no limit")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same fleet and the same events.")] = 1,
    skip: Annotated[int, typer.Option(min=0, help="Skip this many events at the beginning.")] = 0,
) -> None:
    """Publish the events of a simulated fleet into the stream, until Ctrl-C."""
    from projector.dev.simulation import Simulation

    simulation = Simulation(endpoints=endpoints, rate=rate, events=events, seed=seed, skip=skip)
    published = event_loop.run(_simulate(settings, simulation), fast=True)
    typer.echo(f"{published} events published")


def dev(
    endpoints: Annotated[int, typer.Option(min=1, help="Size of the simulated fleet.")] = 1000,
    rate: Annotated[float, typer.Option(min=0.1, help="Events per second.")] = 50,
    duration: Annotated[float | None, typer.Option(min=0, help="Seconds to run.", show_default="no limit")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder for the data.", show_default="the data folder of this user")
    ] = None,
) -> None:
    """Start NATS, Postgres, a simulated fleet and the daemon on this machine, and show them running.

    All data is in one folder, and the next start continues from there. Ctrl-C ends everything.
    """
    from projector.dev.demo import Plan

    plan = Plan(folder=data or data_folder(), endpoints=endpoints, rate=rate, duration_s=duration)
    event_loop.run(_show(plan), fast=True)


async def _simulate(settings: Settings, simulation: "Simulation") -> int:
    import asyncio

    from projector.cli.signals import stopped_by_signals
    from projector.dev.simulation import simulate

    stop = asyncio.Event()
    with stopped_by_signals(stop.set):
        return await simulate(settings, simulation, stop)


async def _show(plan: "Plan") -> None:
    import asyncio

    from projector.cli.signals import stopped_by_signals
    from projector.dev.demo import run

    stop = asyncio.Event()
    # An end without cleanup would leave the servers running.
    with stopped_by_signals(stop.set, force=lambda: None):
        await run(plan, stop)
