"""The view of `projector dev`: a live panel on a terminal, plain lines elsewhere."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from projector.app.notifications import (
    Active,
    Committed,
    Listening,
    Notification,
    NotListening,
    Retrying,
    StandingBy,
)
from projector.app.observers import Observer
from projector.app.status import Status
from projector.domain.summary import Census
from projector.resources import data_folder
from projector.terminal import visible

_RATE_WINDOW_S = 10.0
_VERSIONS_SHOWN = 8
_QUESTION = "select connectivity_status, count(*) from endpoint_state group by 1"


class Meter(Observer):
    """Measures the daemon's throughput, and keeps its state."""

    def __init__(self) -> None:
        """Start at zero."""
        self._commits: deque[tuple[float, int]] = deque()
        self.doing = "starting"

    @property
    def events_per_second(self) -> float:
        """The rate over the last seconds."""
        now = monotonic()
        while self._commits and self._commits[0][0] < now - _RATE_WINDOW_S:
            self._commits.popleft()
        return sum(events for _, events in self._commits) / _RATE_WINDOW_S

    def notify(self, notification: Notification) -> None:
        """Count committed events, and note the daemon's state."""
        match notification:
            case StandingBy():
                self.doing = "standing by: another projector is active on this database"
            case Active(checkpoint=checkpoint):
                self.doing = f"active since position {checkpoint.position}"
            case Committed(outcome=outcome):
                self._commits.append((monotonic(), outcome.events))
            case Retrying(error=error):
                self.doing = f"waiting: {error}"


class View(Observer):
    """Draws the state of the projection."""

    def __init__(self, console: Console, config: Path) -> None:
        """Draw on a console; `config` is the settings file for other commands."""
        self.live = console.is_terminal
        self._console = console
        self._picture = Live(console=console, auto_refresh=False, screen=False) if self.live else None
        # Every command finds the settings file in its default folder.
        usual = config.parent == data_folder()
        self._command = f'projector sql {"" if usual else f"--config {config} "}"{_QUESTION}"'

    def __enter__(self) -> Self:
        # Above the panel: the end of a panel that is taller than the terminal is not shown.
        self._console.print(f"query it from another terminal:  {self._command}", highlight=False, soft_wrap=True)
        if self._picture is not None:
            self._picture.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._picture is not None:
            self._picture.stop()

    def notify(self, notification: Notification) -> None:
        """Show the URL of the daemon's page, or why there is none."""
        match notification:
            case Listening(url=url):
                self._console.print(f"open it in a browser:  {url}", highlight=False, soft_wrap=True)
            case NotListening(reason=reason):
                self._console.print(
                    f"no page in a browser:  {reason}; the daemon retries", highlight=False, soft_wrap=True
                )

    def show(self, status: Status, census: Census, meter: Meter, *, stale: str | None = None) -> None:
        """Draw the latest figures; `stale` says why they are old."""
        doing = meter.doing if stale is None else f"these figures are old: {stale}"
        if self._picture is None:
            self._console.print(
                visible(_line(status, census, meter, doing)), markup=False, highlight=False, soft_wrap=True
            )
        else:
            self._picture.update(self._panel(status, census, meter, doing), refresh=True)

    def _panel(self, status: Status, census: Census, meter: Meter, doing: str) -> Panel:
        figures = Table.grid(padding=(0, 2))
        for name, value in (
            ("endpoints", f"{status.endpoints:,}"),
            ("events per second", f"{meter.events_per_second:,.0f}"),
            ("lag in messages", f"{status.lag_messages:,}"),
            ("dead letters", f"{status.dead_letters:,}"),
            ("checkpoint", f"{status.checkpoint_seq:,} of {status.stream_last_seq:,}"),
        ):
            figures.add_row(Text(name, style="dim"), Text(value, style="bold"))
        return Panel(
            Group(
                Columns(
                    [figures, _bars("status", census.by_status), _bars("version", census.by_version)], padding=(0, 4)
                ),
                Text(f"\n{doing}", style="dim"),
                Text("\nCtrl-C ends everything; the data is kept.", style="dim"),
            ),
            title="endpoint state projector",
        )


def _bars(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title=f"endpoints by {title}", box=None, show_header=False, title_justify="left")
    largest = max(counts.values(), default=1)
    for name, count in list(counts.items())[:_VERSIONS_SHOWN]:
        table.add_row(
            Text(visible(name)),
            Text(f"{count:,}", justify="right"),
            Text("█" * round(12 * count / largest), style="green"),
        )
    if len(counts) > _VERSIONS_SHOWN:
        table.add_row(f"… and {len(counts) - _VERSIONS_SHOWN} more")
    return table


def _line(status: Status, census: Census, meter: Meter, doing: str) -> str:
    by_status = ", ".join(f"{count} {name}" for name, count in census.by_status.items()) or "none yet"
    return (
        f"{status.endpoints} endpoints ({by_status}), {len(census.by_version)} versions, "
        f"{meter.events_per_second:.0f} events/s, lag {status.lag_messages}, {status.dead_letters} dead letters, "
        f"{doing}"
    )
