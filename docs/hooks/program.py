"""What the reference pages read from `projector`: only this module of the docs knows where to find each thing."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

import typer
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from projector import errors
from projector.app.status import Status
from projector.cli import exit_codes
from projector.cli.main import app
from projector.doctor import examination
from projector.doctor.findings import Check, version_text
from projector.doctor.known_faults import NATS_FAULTS
from projector.errors import FatalError, PoisonReason, ProjectorError
from projector.monitoring.about import About
from projector.monitoring.metrics import Metrics
from projector.settings import ENVIRONMENT_PREFIX, SETTINGS, Setting
from projector.storage.tables import VIEWS, metadata

__all__ = [
    "CHECKS",
    "ENVIRONMENT_PREFIX",
    "EXIT_CODES",
    "NATS_FAULTS",
    "POISON_REASONS",
    "STATUS_FIELDS",
    "TABLES",
    "VIEW_COMMENTS",
    "FatalError",
    "Metric",
    "ProjectorError",
    "Setting",
    "command_line",
    "families",
    "http_endpoints",
    "log_events",
    "metrics",
    "settings",
    "subclasses",
    "version_text",
]

ROOT = Path(__file__).parents[2]
LOG = ROOT / "projector" / "cli" / "log.py"
HTTP_SERVER = tuple(ROOT / "projector" / "monitoring" / f"{name}.py" for name in ("server", "api"))

CHECKS: Sequence[Check[Any]] = examination.CHECKS
EXIT_CODES = (0, *sorted(code for name, code in vars(exit_codes).items() if name.startswith("EXIT_")))
POISON_REASONS: tuple[str, ...] = get_args(PoisonReason)
STATUS_FIELDS = tuple(field.name for field in fields(Status))
TABLES = metadata.tables
VIEW_COMMENTS = {
    view: dict(
        comment
        for path in VIEWS
        for comment in re.findall(rf"COMMENT ON COLUMN {view}\.(\w+) IS\s+'(.*)';", path.read_text(encoding="utf-8"))
    )
    for view in ("projector_status", "endpoint_session")
}
"""By view, the comments of its columns."""


class Metric(NamedTuple):
    """A metric as Prometheus sees it."""

    name: str
    kind: str
    labels: Sequence[str]
    help: str


def settings() -> Mapping[str, Setting]:
    """Return the settings by name."""
    return SETTINGS


def command_line() -> Any:
    """Return the command group of the command line, as Typer builds it."""
    return typer.main.get_command(app)


def metrics() -> Iterator[Metric]:
    """Yield the metrics of the daemon in the order in which they are registered."""
    about = About(version="", revision="", rules=0, stream="")
    unused: Any = None  # liveness and health are read at a scrape only
    registry: CollectorRegistry = Metrics(about, unused, unused)._registry  # noqa: SLF001
    for collector in dict.fromkeys(registry._collector_to_names):  # noqa: SLF001
        if isinstance(collector, MetricWrapperBase):
            kind = str(collector._type)  # noqa: SLF001
            name = f"{collector._name}_total" if kind == "counter" else collector._name  # noqa: SLF001
            yield Metric(name, kind, collector._labelnames, collector._documentation)  # noqa: SLF001
            continue
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield Metric(name, family.type, (), family.documentation)


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    """Yield the errors of a family in the order in which `projector.errors` defines them."""
    for subclass in kind.__subclasses__():
        if subclass.__module__ == errors.__name__:
            yield subclass
            yield from subclasses(subclass)


def families() -> Sequence[type[Exception]]:
    """Return the families of errors."""
    return [kind for kind in ProjectorError.__subclasses__() if kind.__module__ == errors.__name__]


def log_events() -> Sequence[str]:
    """Return the events that the daemon's log can name."""
    return re.findall(r'log\.(?:info|warning|error)\(\s*"([^"]+)"', LOG.read_text(encoding="utf-8"))


def http_endpoints() -> Sequence[str]:
    """Return the paths that the daemon serves."""
    found = [
        path for file in HTTP_SERVER for path in re.findall(r'web\.get\("([^"]+)"', file.read_text(encoding="utf-8"))
    ]
    return [path.replace("{id:[^/]+}", "ID").replace("{name}", "NAME") for path in found if "{rest" not in path]
