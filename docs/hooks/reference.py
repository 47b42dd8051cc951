"""The parts of the reference that are rendered from the code; a page names one with `<!-- generated: NAME -->`."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import program

_MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->\n", flags=re.MULTILINE)
_URL = re.compile(r"(\S+://\S*[\w\]/])")
_CONFIG_OPTION = "config"
_SQL_TYPES = {
    "TEXT": "text",
    "TEXT[]": "text[]",
    "JSONB": "jsonb",
    "TIMESTAMP": "timestamptz",
    "BIGINT": "bigint",
    "INTEGER": "integer",
    "BYTEA": "bytea",
    "BLOB": "bytea",
    "ARRAY": "text[]",
}


def fill(markdown: str) -> str:
    """Replace the markers of a page with what they name.

    Raises:
        KeyError: there is no such part.
    """
    return _MARKER.sub(lambda found: PARTS[found[1]](), markdown)


def complete(markdown: str) -> str:
    """Add the columns that the code knows to the table of findings, whose meaning is written by hand.

    Raises:
        ValueError: the table does not have exactly the findings of the code, in their order.
    """
    if not (found := re.search(r"^\| finding \| meaning \|\n\|[-| ]+\|\n((?:\|.*\|\n)+)", markdown, re.MULTILINE)):
        return markdown
    written = {cell[0]: cell[1] for cell in map(cells, found[1].splitlines())}
    known = {f"`{check.name}`": check for check in program.CHECKS}
    if list(written) != list(known):
        different = set(written) ^ set(known)
        raise ValueError(f"the findings of `projector doctor` are not those of the page: {different or 'other order'}")
    rows = [(name, known[name].severity, meaning, known[name].remedy) for name, meaning in written.items()]
    return markdown.replace(found[0], table(("finding", "severity", "meaning", "remedy"), rows))


def cells(row: str) -> list[str]:
    """Return the cells of a row of a table."""
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# Settings.


def _settings() -> str:
    rows = [
        (
            f"`{setting.flag}`",
            f"`{setting.variable}`",
            _default(setting),
            _URL.sub(r"`\1`", setting.description),  # Markdown would take the brackets of its pattern for a link
        )
        for setting in program.settings().values()
    ]
    return table(("flag", "environment", "default", "meaning"), rows)


def _default(setting: program.Setting) -> str:
    if setting.required:
        return "required"
    if setting.default is None:
        return "none"
    if setting.default == ():
        return "all"
    return f"`{str(setting.default).lower() if isinstance(setting.default, bool) else setting.default}`"


# The command line.


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the commands that do something, with their full names."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for own_name, own in inner.items():
        yield from leaves(own, f"{name} {own_name}")


def _commands() -> str:
    return "\n".join(_command(name, command) for name, command in leaves(program.command_line(), "projector"))


def _command(name: str, command: Any) -> str:
    parameters = [one for one in command.params if one.name not in program.settings() and not _is_global(one)]
    takes_settings = len(parameters) < len([one for one in command.params if not _is_help(one)])
    arguments = [one for one in parameters if not one.opts[0].startswith("-")]
    options = [one for one in parameters if one.opts[0].startswith("-")]
    parts = [f"### {name}\n", f"```text\n{_usage(name, arguments, options, takes_settings=takes_settings)}\n```\n"]
    parts.append(f"{inspect.cleandoc(command.help or '')}\n")
    if parameters:
        rows = [(_parameter(one), _help(one)) for one in (*arguments, *options)]
        parts.append(table(("argument or option", "meaning"), rows))
    return "\n".join(parts)


def _is_help(parameter: Any) -> bool:
    return "--help" in parameter.opts


def _is_global(parameter: Any) -> bool:
    return parameter.name == _CONFIG_OPTION or _is_help(parameter)


def _usage(name: str, arguments: Sequence[Any], options: Sequence[Any], *, takes_settings: bool) -> str:
    words = [name]
    words += [_argument(one) for one in arguments]
    words += [f"{one.opts[0]} VALUE" for one in options if one.required]
    if any(not one.required for one in options):
        words.append("[OPTIONS]")
    if takes_settings:
        words.append("[SETTINGS]")
    return " ".join(words)


def _argument(argument: Any) -> str:
    word = f"{argument.name.upper()} …" if argument.nargs == -1 else argument.name.upper()
    return word if argument.required else f"[{word}]"


def _parameter(parameter: Any) -> str:
    if not parameter.opts[0].startswith("-"):
        return f"`{parameter.name.upper()}`"
    return f"`{parameter.opts[0]}`" if parameter.is_flag else f"`{parameter.opts[0]} VALUE`"


def _help(parameter: Any) -> str:
    shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    if parameter.required:
        return f"{parameter.help} Required."
    if shown is None or shown is False or shown is True or str(shown).startswith("/"):  # a folder of this machine
        return str(parameter.help)
    return f"{parameter.help} Default: {shown}."


# Metrics, tables, errors, versions.


def _metrics() -> str:
    rows = [
        (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.help)
        for one in program.metrics()
    ]
    return table(("metric", "type", "labels", "meaning"), rows)


def _sql_type(column: Any) -> str:
    text = _SQL_TYPES[str(column.type)]
    if column.primary_key:
        return f"{text}, primary key"
    return text if column.nullable else f"{text}, not null"


def _tables() -> str:
    parts = []
    for name, one in program.TABLES.items():
        rows = [(f"`{column.name}`", _sql_type(column), str(column.comment)) for column in one.columns]
        parts.append(f"## {name}\n\n{one.comment}.\n\n{table(('column', 'type', 'meaning'), rows)}")
    return "\n".join(parts)


def _view(view: str) -> str:
    rows = [(f"`{name}`", comment) for name, comment in program.VIEW_COMMENTS[view].items()]
    return table(("column", "meaning"), rows)


def _errors() -> str:
    parts = []
    for family in program.families():
        parts.append(f"### {family.__name__}\n\n{_docstring(family)}\n")
        rows = [(f"`{one.__name__}`", _docstring(one), _facts(one)) for one in program.subclasses(family)]
        if rows:
            parts.append(table(("error", "meaning", "attributes"), rows))
    return "\n".join(parts)


def _docstring(kind: type[Exception]) -> str:
    return " ".join((inspect.getdoc(kind) or "").split())


def _facts(kind: type[Exception]) -> str:
    """Return the attributes that an error sets itself."""
    own = vars(kind).get("__init__")
    source = inspect.getsource(own) if own else ""
    return ", ".join(f"`{name}`" for name in dict.fromkeys(re.findall(r"self\.(\w+)(?:: \w+)? =", source)))


def _faults() -> str:
    rows = [
        (
            "NATS in a cluster" if fault.only_in_clusters else "NATS",
            f"{program.version_text(fault.first)} to before {program.version_text(fault.fixed)}",
            fault.what,
            fault.source,
        )
        for fault in program.NATS_FAULTS
    ]
    return table(("server", "versions", "fault", "source"), rows)


PARTS: Mapping[str, Callable[[], str]] = {
    "settings": _settings,
    "commands": _commands,
    "metrics": _metrics,
    "tables": _tables,
    "status-view": partial(_view, "projector_status"),
    "session-view": partial(_view, "endpoint_session"),
    "errors": _errors,
    "server-faults": _faults,
}


def decisions(folder: Path) -> list[str]:
    """Return the decision records of a folder of documents, as the navigation takes them."""
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "decisions").glob("*.md"))
