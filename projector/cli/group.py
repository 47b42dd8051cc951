"""A group of commands that starts fast."""

from typing import Any

from typer.core import TyperGroup


class Group(TyperGroup):
    """Typer's group, with flags that are off unless they are given.

    Typer loads pydantic to interpret a flag without a default, such as its own --help, in every command.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the group."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.default is None:
                parameter.default = False
        return parameters
