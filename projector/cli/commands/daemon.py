"""Preparing and running the daemon."""

from typing import Annotated

import typer

from projector.cli import event_loop
from projector.cli.options import with_settings
from projector.cli.verbosity import Verbosity
from projector.settings import Settings


@with_settings
def init(settings: Settings) -> None:
    """Migrate the database, and create the stream if it is missing; with PROJECTOR_PUBLISH, that of the changes too.

    It can run at any time, and changes nothing that is up to date.
    """
    from projector.runtime import Projector

    projector = Projector(settings)
    created = event_loop.run(projector.init())
    typer.echo("the tables are up to date")
    typer.echo(f"stream {settings.stream} {'was created' if created else 'is there'}")
    if projector.changes_stream is not None:
        typer.echo(f"stream {projector.changes_stream} stores the changes, {settings.publish}.>")


@with_settings
def run(
    settings: Settings,
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
    event_loop.run(run_daemon(settings, until_caught_up=until_caught_up, accept_gap=accept_gap), fast=True)
