"""The progress of a replay: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_LINE_EVERY_S = 2.0


@contextmanager
def replay_progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows progress; it takes the position reached and the position to reach."""
    if console.is_terminal:
        with Progress(
            TextColumn("replaying"),
            BarColumn(),
            TaskProgressColumn(show_speed=True),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as bar:
            task = bar.add_task("replaying", total=None)
            yield lambda position, target: bar.update(task, completed=position, total=target)
    else:
        yield _Lines(console)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._began: tuple[float, int] | None = None
        self._due = 0.0

    def __call__(self, position: int, target: int) -> None:
        now = monotonic()
        if self._began is None:
            self._began = now, position
        if now < self._due and position < target:
            return
        self._due = now + _LINE_EVERY_S
        seconds, positions = now - self._began[0], position - self._began[1]
        speed = ""  # the first report has nothing to measure from
        if seconds and positions:
            rate = positions / seconds
            speed = f", {rate:.0f} positions/s, {(target - position) / rate:.0f} s left"
        self._console.print(f"replayed to position {position} of {target}{speed}", highlight=False, soft_wrap=True)
