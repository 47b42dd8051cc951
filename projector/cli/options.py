"""The settings as options of a command, generated from `Settings`."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from projector.resources import data_folder
from projector.settings import CONFIG_NAME, CONFIG_VARIABLE, SETTINGS, Setting, load

R = TypeVar("R")
_PANEL = "Settings"

LAST_POSITION = 2**63 - 1
"""The largest bigint of Postgres."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def with_settings(command: Callable[..., R]) -> Callable[..., R]:
    """Replace the first parameter of a command, its settings, with one option for each setting."""

    @functools.wraps(command)
    def run(**given: Any) -> R:
        flags = {name: given.pop(name) for name in SETTINGS}
        return command(load(flags, config=given.pop("config"), fallback=data_folder() / CONFIG_NAME), **given)

    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    signature = inspect.Signature([*own, *_parameters()])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


@functools.cache
def _parameters() -> Sequence[inspect.Parameter]:
    """Return the parameters that every command with settings has."""
    return [
        _parameter(
            "config",
            Path,
            typer.Option(
                envvar=CONFIG_VARIABLE,
                show_default=False,
                rich_help_panel=_PANEL,
                help=f"TOML file with settings; {CONFIG_NAME} in the working directory if there is one.",
            ),
        ),
        *(
            _parameter(
                setting.name,
                str,
                typer.Option(setting.flag, show_default=False, rich_help_panel=_PANEL, help=_help(setting)),
            )
            for setting in SETTINGS.values()
        ),
    ]


def _parameter(name: str, kind: type, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _help(setting: Setting) -> str:
    shown = "" if setting.default in (None, (), False) else f" Default: {setting.default}."
    # Escaped, since Rich would interpret brackets as markup.
    return f"{setting.description}{shown} [{setting.variable}]".replace("[", r"\[")
