"""Commands that inspect the projector and its servers, and change nothing."""

from typing import Annotated

import typer

from projector.cli import event_loop
from projector.cli.exit_codes import EXIT_DIFFERENCE
from projector.cli.options import LAST_POSITION, Json, with_settings
from projector.settings import Settings


@with_settings
def status(settings: Settings, as_json: Json = False) -> None:
    """Show the progress of the projection, and what needs attention."""
    from dataclasses import asdict

    from projector.cli.reports import print_status
    from projector.monitoring.answers import to_json
    from projector.runtime import Projector

    found = event_loop.run(Projector(settings).status())
    if as_json:
        typer.echo(to_json(asdict(found)))
    else:
        print_status(found)


@with_settings
def doctor(
    settings: Settings,
    nats_monitoring: Annotated[
        str | None,
        typer.Option(help="URL of the monitoring endpoint of NATS, the only place that shows how it writes to disk."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Inspect NATS and Postgres, change nothing, and say what will cause trouble; exit 1 if anything is an error."""
    from projector.cli.reports import print_examination
    from projector.monitoring.answers import to_json
    from projector.runtime import Projector

    if nats_monitoring is not None:
        if not nats_monitoring.startswith(("http://", "https://")):
            raise typer.BadParameter("it must begin with http:// or https://", param_hint="--nats-monitoring")
        if "@" in nats_monitoring:  # findings quote the URL
            raise typer.BadParameter("it must not contain a user or a password", param_hint="--nats-monitoring")
    examination = event_loop.run(Projector(settings).doctor(nats_monitoring=nats_monitoring))
    if as_json:
        findings = [finding._asdict() for finding in examination.findings]
        typer.echo(to_json({"findings": findings, "unseen": examination.unseen}))
    else:
        print_examination(examination)
    if examination.has_error:
        raise typer.Exit(EXIT_DIFFERENCE)


@with_settings
def explain(  # noqa: PLR0913, PLR0917 - each is an option
    settings: Settings,
    endpoint: Annotated[str, typer.Argument(help="Endpoint id; after `--` if it begins with a dash.")],
    at: Annotated[
        str | None,
        typer.Option(help="The moment to explain, in ISO 8601 (UTC unless it has an offset), or before now: -2h."),
    ] = None,
    events: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1_000_000,
            help="Show this many of the latest rows; an event has one for each facet.",
            show_default="20, or all with --replay",
        ),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Read the stream instead of the database, from its beginning.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show which event set each column of an endpoint, and why its latest events were applied or rejected."""
    from rich.console import Console

    from projector.app.explain import EVENTS_SHOWN
    from projector.cli.explanations import notes, print_explanation
    from projector.cli.moments import moment
    from projector.cli.progress import replay_progress
    from projector.monitoring.answers import to_json
    from projector.runtime import Projector

    when = None if at is None else moment(at)
    limit = EVENTS_SHOWN if events is None and not replay else events
    with replay_progress(Console(quiet=as_json)) as progress:
        work = Projector(settings).explain(endpoint, at=when, events=limit, replay=replay, progress=progress)
        found = event_loop.run(work, fast=replay)
    if as_json:
        typer.echo(to_json(found.as_dict()))
        for note in notes(found):
            typer.echo(note, err=True)
    else:
        print_explanation(found)


@with_settings
def wait(
    settings: Settings,
    seq: Annotated[
        int, typer.Option(min=0, max=LAST_POSITION, help="Stream sequence of the message.", show_default=False)
    ],
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait.", show_default="no limit")] = None,
) -> None:
    """Return as soon as a message is folded and can be read; exit 1 if the timeout is over first."""
    from projector.cli.reports import leader
    from projector.runtime import Projector

    waited = event_loop.run(Projector(settings).wait(seq, timeout_s=timeout))
    if not waited.reached:
        typer.echo(
            f"the checkpoint is at {waited.position}, not yet at {seq}; active: {leader(waited.active)}", err=True
        )
        raise typer.Exit(EXIT_DIFFERENCE)


@with_settings
def sql(
    settings: Settings,
    statement: Annotated[str, typer.Argument(help='A query, such as "select count(*) from endpoint_state".')],
) -> None:
    """Run a query in a read-only transaction, and print the rows."""
    from projector.cli.tables import print_rows
    from projector.runtime import Projector

    answer = event_loop.run(Projector(settings).sql(statement))
    print_rows(answer.columns, answer.rows)
