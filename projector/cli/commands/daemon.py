"""Preparing and running the daemon."""

from typing import Annotated

import typer

from projector.cli import event_loop
from projector.cli.options import with_settings
from projector.cli.verbosity import Verbosity
from projector.settings import Settings

MOST_SHARDS = 256


@with_settings
def init(
    settings: Settings,
    shards: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_SHARDS, show_default=False, help="Divide the endpoints into this many shards."),
    ] = None,
    distribute: Annotated[
        bool, typer.Option(help="Distribute the tables of endpoints over the workers of Citus.")
    ] = False,
) -> None:
    """Migrate the database, and create the stream if it is missing; with PROJECTOR_PUBLISH, that of the changes too.

    It can run at any time, and changes nothing that is up to date;
    with --shards or --distribute, every daemon has to be stopped.
    """
    from projector.runtime import Projector

    projector = Projector(settings)
    created = event_loop.run(projector.init(shards=shards, distribute=distribute))
    typer.echo("the tables are up to date")
    if distribute:
        typer.echo("endpoint_state and endpoint_change are distributed by endpoint_id")
    typer.echo(f"stream {settings.stream} {'was created' if created else 'is there'}")
    if shards is not None:
        typer.echo(f"the endpoints are divided into {shards} shard{'' if shards == 1 else 's'}")
    if projector.changes_stream is not None:
        typer.echo(f"stream {projector.changes_stream} stores the changes, {settings.publish}.>")


@with_settings
def run(
    settings: Settings,
    workers: Annotated[
        int, typer.Option(min=1, max=MOST_SHARDS, help="Number of processes to start, which share the shards.")
    ] = 1,
    until_caught_up: Annotated[bool, typer.Option(help="Stop at the end of the stream.")] = False,
    accept_gap: Annotated[
        bool, typer.Option(help="Continue even if events left the stream before they were folded.")
    ] = False,
) -> None:
    """Follow the stream and keep endpoint_state up to date, until SIGTERM or Ctrl-C.

    The current batch is finished first. The daemon waits for a server that is down, and retries.
    """
    from projector.cli import log
    from projector.cli.daemon import run_daemon

    log.configure(verbose=Verbosity.on)
    daemon = run_daemon(settings, workers=workers, until_caught_up=until_caught_up, accept_gap=accept_gap)
    event_loop.run(daemon, fast=True)
