"""The command line."""

import asyncio
import dataclasses
import sys
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from rich.console import Console

from projector import __version__, resources
from projector.app.dead_letters import Retried
from projector.app.rebuild import Report
from projector.cli import log, reports, tables
from projector.cli.options import with_settings
from projector.cli.progress import replay_progress
from projector.dev import demo
from projector.dev.simulation import Simulation
from projector.domain.messages import Selection
from projector.errors import ProjectorError, SettingError, one_line
from projector.monitoring.report import as_json as to_json
from projector.runtime import Runtime
from projector.settings import Settings

T = TypeVar("T")

_LAST_POSITION = 2**63 - 1
"""As far as Postgres can count."""

EXIT_DIFFERENCE = 1
EXIT_USAGE = 2
EXIT_FATAL = 3

app = typer.Typer(
    name="projector",
    help="Keeps the present state of every IoT endpoint in Postgres, exactly as its event stream implies it.\n\n"
    "New here? `projector dev` starts everything on this machine and shows it at work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dead_letters = typer.Typer(help="Look after messages that could not be folded.", no_args_is_help=True)
app.add_typer(dead_letters, name="dead-letters")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class _Verbosity:
    """Whether errors are shown with their tracebacks; set once, by the first option of the command line."""

    on = False


def main() -> None:
    """Run the command line; the exit code is 0 fine, 1 difference or error found, 2 usage or setting, 3 fatal."""
    try:
        app(standalone_mode=True)
    except ProjectorError as error:
        _complain(error, str(error))
        sys.exit(EXIT_USAGE if isinstance(error, SettingError) else EXIT_FATAL)
    except Exception as error:  # noqa: BLE001 - scripts would take the exit code of a traceback for a difference
        _complain(
            error, f"unexpected {type(error).__name__}: {one_line(error)}; please report it, --verbose shows where"
        )
        sys.exit(EXIT_FATAL)


def _complain(error: Exception, text: str) -> None:
    if _Verbosity.on:
        typer.echo(tables.visible_lines("".join(traceback.format_exception(error))), err=True, nl=False)
    complaint = tables.visible_lines(f"error: {text}")  # several where embedded servers do not start
    Console(stderr=True, soft_wrap=True, highlight=False).print(complaint, style="red", markup=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"projector {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more, and show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    del version
    _Verbosity.on = verbose
    log.configure(verbose=verbose)


@app.command()
@with_settings
def init(settings: Settings) -> None:
    """Prepare database and broker: migrate the tables, and create the stream if it is missing.

    It can be run at any time, and changes nothing where nothing has to be changed.
    """
    created = _run(Runtime(settings).init())
    typer.echo("the tables are up to date")
    typer.echo(f"stream {settings.stream} {'was created' if created else 'is there'}")


@app.command()
@with_settings
def run(
    settings: Settings,
    until_caught_up: Annotated[bool, typer.Option(help="Stop at the end of the stream.")] = False,
    accept_gap: Annotated[
        bool, typer.Option(help="Go on although events left the stream before they were folded.")
    ] = False,
) -> None:
    """Follow the stream and keep endpoint_state up to date, until SIGTERM or Ctrl-C.

    A batch in hand is finished first. Whatever may pass, such as a server that is down, is waited for.
    """
    _run(Runtime(settings).run(until_caught_up=until_caught_up, accept_gap=accept_gap))


AcceptTrimmed = Annotated[
    bool,
    typer.Option(help="The stream's beginning is gone: rely on what the table knows from before."),
]


@app.command()
@with_settings
def rebuild(settings: Settings, accept_trimmed: AcceptTrimmed = False) -> None:
    """Replay the stream and make endpoint_state what it implies; only rows that differ are changed.

    Everybody goes on reading, and a running daemon goes on folding.
    """
    report = _replay(settings, apply=True, accept_trimmed=accept_trimmed)
    reports.print_report(report, applied=True)


@app.command()
@with_settings
def verify(
    settings: Settings,
    accept_trimmed: AcceptTrimmed = False,
    sample: Annotated[int, typer.Option(min=0, max=_LAST_POSITION, help="Show so many of the rows that differ.")] = 0,
    endpoint: Annotated[str | None, typer.Option(help="Show this endpoint, and the messages about it.")] = None,
    as_json: Json = False,
) -> None:
    """Replay the stream and compare what it implies with endpoint_state; exit 1 if anything differs."""
    report = _replay(
        settings, quiet=as_json, apply=False, accept_trimmed=accept_trimmed, show=sample, endpoint_id=endpoint
    )
    if as_json:
        typer.echo(to_json(reports.as_dict(report)))
    else:
        reports.print_report(report, applied=False, asked=endpoint)
    if not report.clean:
        raise typer.Exit(EXIT_DIFFERENCE)


@app.command()
@with_settings
def status(settings: Settings, as_json: Json = False) -> None:
    """Say how far the projection is and whether anything needs attention."""
    answer = _run(Runtime(settings).status())
    if as_json:
        typer.echo(to_json(dataclasses.asdict(answer)))
    else:
        reports.print_status(answer)


@app.command()
@with_settings
def doctor(
    settings: Settings,
    nats_monitoring: Annotated[
        str | None, typer.Option(help="URL of NATS' monitoring endpoint, which alone tells how it writes its disks.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at NATS and Postgres, change nothing, and say what will hurt; exit 1 if anything is an error."""
    if nats_monitoring is not None:
        if not nats_monitoring.startswith(("http://", "https://")):
            raise typer.BadParameter("it must begin with http:// or https://", param_hint="--nats-monitoring")
        if "@" in nats_monitoring:  # what is said of it names it
            raise typer.BadParameter("it may have neither user nor password", param_hint="--nats-monitoring")
    examination = _run(Runtime(settings).doctor(nats_monitoring))
    if as_json:
        findings = [finding._asdict() for finding in examination.findings]
        typer.echo(to_json({"findings": findings, "unseen": examination.unseen}))
    else:
        reports.print_examination(examination)
    if examination.has_error:
        raise typer.Exit(EXIT_DIFFERENCE)


@app.command()
@with_settings
def wait(
    settings: Settings,
    seq: Annotated[
        int, typer.Option(min=0, max=_LAST_POSITION, help="Stream sequence of the message.", show_default=False)
    ],
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds until it gives up.", show_default="none")
    ] = None,
) -> None:
    """Return as soon as a message is folded and can be read; exit 1 if it is not in time."""
    waited = _run(Runtime(settings).wait(seq, timeout_s=timeout))
    if not waited.reached:
        typer.echo(
            f"the checkpoint is at {waited.position}, not yet at {seq}; active: {reports.who(waited.active)}",
            err=True,
        )
        raise typer.Exit(EXIT_DIFFERENCE)


@dead_letters.command("list")
@with_settings
def list_dead_letters(settings: Settings, as_json: Json = False) -> None:
    """List the messages that wait for somebody, in stream order."""
    found = [letter._asdict() for letter in _run(Runtime(settings).dead_letters())]
    if as_json:
        typer.echo(to_json(found))
    elif found:
        tables.print_rows(tuple(found[0]), [tuple(letter.values()) for letter in found])
    else:
        typer.echo("no dead letters")


Position = Annotated[int, typer.Argument(min=1, max=_LAST_POSITION, help="Stream sequence of the message.")]
Positions = Annotated[
    list[int] | None,
    typer.Argument(min=1, max=_LAST_POSITION, help="Stream sequences of the messages.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="All that wait for somebody.")]


@dead_letters.command()
@with_settings
def show(settings: Settings, position: Position) -> None:
    """Show a message: why it was parked, its fields as far as they can be read, and its bytes."""
    letter, fields = _run(Runtime(settings).dead_letter(position))
    tables.print_pairs({**letter._asdict(), "fields": fields})


@dead_letters.command("retry")
@with_settings
def retry_dead_letters(
    settings: Settings,
    positions: Positions = None,
    everything: All = False,
    reason: Annotated[str | None, typer.Option(help="Those parked for this reason.")] = None,
) -> None:
    """Fold messages again, as live ones with their own position; exit 1 if any is parked again."""
    tried = parked_again = 0

    def report(retried: Retried) -> None:
        nonlocal tried, parked_again
        tried += 1
        if retried.parked_again is None:
            typer.echo(f"{retried.position} resolved")
        else:
            parked_again += 1
            why = f"{retried.parked_again.reason}: {retried.parked_again.detail}"
            typer.echo(f"{retried.position} parked again: {tables.visible(why)}")

    _run(Runtime(settings).retry(_selection(positions, everything=everything, reason=reason), report))
    if not tried:
        typer.echo("no dead letters")
    if parked_again:
        raise typer.Exit(EXIT_DIFFERENCE)


@dead_letters.command("discard")
@with_settings
def discard_dead_letters(
    settings: Settings,
    reason: Annotated[str, typer.Option(help="Why nobody needs them.", show_default=False)],
    positions: Positions = None,
    everything: All = False,
) -> None:
    """Close messages that will never be folded; they stay in dead_letter with the reason."""
    closed = _run(Runtime(settings).discard(_selection(positions, everything=everything), reason))
    typer.echo(f"{closed} discarded")


@app.command()
@with_settings
def sql(
    settings: Settings,
    statement: Annotated[str, typer.Argument(help='What to ask, such as "select count(*) from endpoint_state".')],
) -> None:
    """Ask the database something; nothing can be changed this way."""
    answer = _run(Runtime(settings).sql(statement))
    tables.print_rows(answer.columns, answer.rows)


@app.command()
@with_settings
def simulate(  # noqa: PLR0913, PLR0917 - every one is an option
    settings: Settings,
    endpoints: Annotated[int, typer.Option(min=1, help="Size of the fleet.")] = 1000,
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0 for as fast as it goes.")] = 50,
    events: Annotated[int | None, typer.Option(min=0, help="Stop after so many.", show_default="never")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same fleet and the same life.")] = 1,
    skip: Annotated[int, typer.Option(min=0, help="Begin so many events into that life.")] = 0,
) -> None:
    """Publish the life of a simulated fleet into the stream, until Ctrl-C."""
    simulation = Simulation(endpoints=endpoints, rate=rate, events=events, seed=seed, skip=skip)
    published = _run(Runtime(settings).simulate_until_stopped(simulation))
    typer.echo(f"{published} events published")


@app.command()
def dev(
    endpoints: Annotated[int, typer.Option(min=1, help="Size of the simulated fleet.")] = 1000,
    rate: Annotated[float, typer.Option(min=0.1, help="Events per second.")] = 50,
    duration: Annotated[float | None, typer.Option(min=0, help="Seconds until it ends.", show_default="never")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the servers' data.", show_default=str(resources.data_folder()))
    ] = None,
) -> None:
    """Start NATS, Postgres, a simulated fleet and the daemon on this machine, and show them at work.

    Everything is kept in one folder, and the next start goes on where this one ended. Ctrl-C ends all of it.
    """
    plan = demo.Plan(folder=data or resources.data_folder(), endpoints=endpoints, rate=rate, duration_s=duration)
    _run(demo.run(plan))


def _selection(positions: list[int] | None, *, everything: bool, reason: str | None = None) -> Selection:
    if not positions and not everything and reason is None:
        raise typer.BadParameter("say which: positions, or --all")
    return Selection(positions or (), reason)


def _replay(settings: Settings, *, quiet: bool = False, **options: Any) -> Report:
    with replay_progress(Console(quiet=quiet)) as progress:
        return _run(Runtime(settings).rebuild(progress, **options))


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
