"""The entry point of the command line."""

import sys
from typing import Annotated

import typer

from projector.cli.commands import daemon, dead_letters, development, inspection, replay
from projector.cli.exit_codes import EXIT_FATAL, EXIT_USAGE
from projector.cli.group import Group
from projector.cli.verbosity import Verbosity
from projector.errors import ProjectorError, SettingError, one_line
from projector.terminal import visible_lines
from projector.version import __version__

app = typer.Typer(
    name="projector",
    cls=Group,
    help="Keeps the current state of every IoT endpoint in Postgres, exactly as its event stream implies.\n\n"
    "New here? `projector dev` starts everything on this machine and shows it running.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"projector {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more, and show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version
    Verbosity.on = verbose


for command in (
    daemon.init,
    daemon.run,
    replay.rebuild,
    replay.verify,
    inspection.status,
    inspection.explain,
    inspection.doctor,
    inspection.wait,
    inspection.sql,
    development.simulate,
    development.dev,
):
    app.command()(command)
app.add_typer(dead_letters.app, name="dead-letters")


def main() -> None:
    """Run the command line; `exit_codes` lists the codes that it ends with."""
    try:
        app()
    except ProjectorError as error:
        _print_error(error, str(error))
        sys.exit(EXIT_USAGE if isinstance(error, SettingError) else EXIT_FATAL)
    except Exception as error:  # noqa: BLE001 - Python's own exit code would be taken for a difference
        _print_error(
            error, f"unexpected {type(error).__name__}: {one_line(error)}; please report it, --verbose shows where"
        )
        sys.exit(EXIT_FATAL)


def _print_error(error: Exception, text: str) -> None:
    import traceback

    from rich.console import Console

    if Verbosity.on:
        typer.echo(visible_lines("".join(traceback.format_exception(error))), err=True, nl=False)
    # Several lines if an embedded server does not start: the end of its log.
    line = visible_lines(f"error: {text}")
    Console(stderr=True, soft_wrap=True, highlight=False).print(line, style="red", markup=False)
