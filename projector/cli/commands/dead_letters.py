"""Dead letters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from projector.cli import event_loop
from projector.cli.exit_codes import EXIT_DIFFERENCE
from projector.cli.group import Group
from projector.cli.options import LAST_POSITION, Json, with_settings
from projector.errors import PoisonReason
from projector.settings import Settings

if TYPE_CHECKING:
    from projector.domain.messages import Selection

app = typer.Typer(cls=Group, help="Inspect, retry and discard messages that could not be folded.", no_args_is_help=True)

Position = Annotated[int, typer.Argument(min=1, max=LAST_POSITION, help="Stream sequence of the message.")]
Positions = Annotated[
    list[int] | None,
    typer.Argument(min=1, max=LAST_POSITION, help="Stream sequences of the messages.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="Every dead letter that is neither resolved nor discarded.")]


@app.command("list")
@with_settings
def list_dead_letters(settings: Settings, as_json: Json = False) -> None:
    """List the dead letters that are neither resolved nor discarded, in stream order."""
    from projector.cli.tables import print_rows
    from projector.monitoring.answers import to_json
    from projector.runtime import Projector

    found = [letter._asdict() for letter in event_loop.run(Projector(settings).dead_letters())]
    if as_json:
        typer.echo(to_json(found))
    elif found:
        print_rows(tuple(found[0]), [tuple(letter.values()) for letter in found])
    else:
        typer.echo("no dead letters")


@app.command()
@with_settings
def show(settings: Settings, position: Position) -> None:
    """Show a dead letter: why it was parked, the fields that can be read, and its bytes."""
    from projector.cli.tables import print_pairs
    from projector.runtime import Projector

    letter, fields = event_loop.run(Projector(settings).dead_letter(position))
    print_pairs({**letter._asdict(), "fields": fields})


@app.command()
@with_settings
def retry(
    settings: Settings,
    positions: Positions = None,
    everything: All = False,
    reason: Annotated[str | None, typer.Option(help="Dead letters parked for this reason.")] = None,
) -> None:
    """Fold messages again, like live ones at their own position; exit 1 if one is parked again."""
    from projector.terminal import visible

    tried = parked_again = 0

    async def work(selection: "Selection") -> None:
        from projector.runtime import Projector

        nonlocal tried, parked_again
        async for retried in Projector(settings).retry_dead_letters(selection):
            tried += 1
            if retried.parked_again is None:
                typer.echo(f"{retried.position} resolved")
            else:
                parked_again += 1
                why = f"{retried.parked_again.reason}: {retried.parked_again.detail}"
                typer.echo(f"{retried.position} parked again: {visible(why)}")

    event_loop.run(work(_selection(positions, everything=everything, reason=reason)))
    if not tried:
        typer.echo("no dead letters")
    if parked_again:
        raise typer.Exit(EXIT_DIFFERENCE)


@app.command()
@with_settings
def discard(
    settings: Settings,
    reason: Annotated[str, typer.Option(help="Why they are not needed.", show_default=False)],
    positions: Positions = None,
    everything: All = False,
) -> None:
    """Close messages that will never be folded; they stay in dead_letter, with the reason."""
    from projector.runtime import Projector

    selection = _selection(positions, everything=everything)
    closed = event_loop.run(Projector(settings).discard_dead_letters(selection, reason))
    typer.echo(f"{closed} discarded")


def _selection(positions: Sequence[int] | None, *, everything: bool, reason: str | None = None) -> "Selection":
    from projector.domain.messages import Selection

    if reason is not None and reason not in get_args(PoisonReason):
        raise typer.BadParameter(f"it must be one of {', '.join(get_args(PoisonReason))}", param_hint="--reason")
    if not positions and not everything and reason is None:
        raise typer.BadParameter("give positions, or --all")
    return Selection(positions or (), reason)
