"""Commands that replay the stream: rebuild and verify."""

from typing import TYPE_CHECKING, Annotated

import typer

from projector.cli import event_loop
from projector.cli.exit_codes import EXIT_DIFFERENCE
from projector.cli.options import LAST_POSITION, Json, with_settings
from projector.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from projector.app.rebuild import Report

AcceptTrimmed = Annotated[
    bool,
    typer.Option(help="If the beginning of the stream is gone, take its state from the table."),
]


@with_settings
def rebuild(settings: Settings, accept_trimmed: AcceptTrimmed = False) -> None:
    """Replay the stream, and change the rows of endpoint_state that differ from what it implies.

    Queries are not blocked, and a running daemon keeps folding.
    """
    from rich.console import Console

    from projector.cli.progress import replay_progress
    from projector.cli.reports import print_report
    from projector.runtime import Projector

    with replay_progress(Console()) as progress:
        work = Projector(settings).rebuild(accept_trimmed=accept_trimmed, progress=progress)
        report = event_loop.run(_replay(work), fast=True)
    print_report(report, applied=True)


@with_settings
def verify(
    settings: Settings,
    accept_trimmed: AcceptTrimmed = False,
    sample: Annotated[int, typer.Option(min=0, max=LAST_POSITION, help="Show this many of the rows that differ.")] = 0,
    endpoint: Annotated[str | None, typer.Option(help="Show this endpoint, and the messages about it.")] = None,
    as_json: Json = False,
) -> None:
    """Replay the stream, and compare what it implies with endpoint_state; exit 1 if anything differs."""
    from rich.console import Console

    from projector.cli import reports
    from projector.cli.progress import replay_progress
    from projector.monitoring.answers import to_json
    from projector.runtime import Projector

    with replay_progress(Console(quiet=as_json)) as progress:
        work = Projector(settings).verify(
            accept_trimmed=accept_trimmed, show=sample, endpoint_id=endpoint, progress=progress
        )
        report = event_loop.run(_replay(work), fast=True)
    if as_json:
        typer.echo(to_json(reports.as_dict(report)))
    else:
        reports.print_report(report, applied=False, asked=endpoint)
    if not report.clean:
        raise typer.Exit(EXIT_DIFFERENCE)


async def _replay(work: "Awaitable[Report]") -> "Report":
    from projector.cli.garbage_collection import no_garbage_collection
    from projector.cli.signals import interruptible

    with no_garbage_collection():
        return await interruptible(work)
