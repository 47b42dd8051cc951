"""Runs a program as a process, and measures its time, memory and processor time."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

_MEMORY_EVERY_S = 0.02
_REMEMBERED_LINES = 20
_MARKS = ("active", "caught up")
_ROOT = Path(__file__).parent.parent
_MB = 1024 * 1024

Sample = dict[str, float]
"""What one measurement found, by the name of the figure."""

Meters = Mapping[str, Callable[[], float]]
"""By name, the CPU seconds so far of the servers that the program uses."""


class ProgramError(Exception):
    """A measured program failed; the text has the end of what it wrote."""


class Program:
    """A process whose standard error has a JSON object per line, each with an `event`."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        on_event: Callable[[str, Mapping[str, Any]], None] = lambda _event, _facts: None,
    ) -> None:
        """Describe `python -m module arguments`; `on_event` is called on another thread."""
        self._command = [sys.executable, "-m", module, *arguments]
        # Settings of the caller must not affect the measurement.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PROJECTOR_")}
        self._env = {**inherited, "PYTHONPATH": str(_ROOT), **(env or {})}
        self._on_event = on_event
        self._ended = threading.Event()
        self._lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._watch_memory)]
        self.peak_mb = 0.0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        """Stop it if it still runs."""
        self.stop()
        self.wait(check=failure is None)

    def stop(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def cpu_s(self) -> float:
        """Return the CPU seconds it has used so far, with its children."""
        process = psutil.Process(self._process.pid)
        own = process.cpu_times()
        seconds = own.user + own.system + own.children_user + own.children_system
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                seconds += times.user + times.system
        return float(seconds)

    def wait(self, *, check: bool = True) -> None:
        """Wait until it has ended.

        Raises:
            ProgramError: it failed.
        """
        listener, watcher = self._threads
        listener.join()  # until it is waited for, what it used can still be read
        code = self._process.wait()
        self._ended.set()
        watcher.join()
        if check and code:
            tail = "\n".join(self._lines)
            raise ProgramError(f"{' '.join(self._command)} ended with code {code}:\n{tail}")

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line.rstrip())
            try:
                facts = json.loads(line)
                event = facts.pop("event")
            except (ValueError, KeyError, AttributeError, TypeError):
                continue
            self._on_event(event, facts)

    def _watch_memory(self) -> None:
        while not self._ended.wait(_MEMORY_EVERY_S):
            self.peak_mb = max(self.peak_mb, _peak_mb(self._process.pid))


def measure(module: str, *arguments: str, events: int, meters: Meters, env: Mapping[str, str] | None = None) -> Sample:
    """Run a program to its end; it is timed from its first line `active` to its last line `caught up`.

    Raises:
        ProgramError: it failed, or had to try something again, which is not what is to be measured.
    """
    marks: dict[str, tuple[float, Mapping[str, float]]] = {}
    told: dict[str, float] = {}
    retries: list[Mapping[str, Any]] = []

    def on_event(event: str, facts: Mapping[str, Any]) -> None:
        if event in _MARKS:
            if event == "active" and event in marks:
                return  # another worker
            cpu = {"process": program.cpu_s(), "machine": _machine_cpu_s()}
            marks[event] = time.perf_counter(), cpu | {name: meter() for name, meter in meters.items()}
        if event == _MARKS[1]:
            told.update({name: value for name, value in facts.items() if isinstance(value, float)})
        if event == "retrying":
            retries.append(facts)
            program.stop()

    program = Program(module, *arguments, env=env, on_event=on_event)
    began = time.perf_counter()
    with program:
        program.wait()
    ended = time.perf_counter()
    if retries or len(marks) < len(_MARKS):
        raise ProgramError(f"{module} {' '.join(arguments)} had to retry, or never began: {retries}")
    (first, first_cpu), (last, last_cpu) = (marks[event] for event in _MARKS)
    seconds = last - first
    used = {name: last_cpu[name] - first_cpu[name] for name in first_cpu}
    machine = used.pop("machine")
    return {
        "per_second": events / seconds,
        "seconds": seconds,
        "seconds_with_start_up": ended - began,
        "peak_mb": program.peak_mb,
        **{f"{name}_cpu_s_per_million": value / events * 1_000_000 for name, value in used.items()},
        "foreign_cores": max(0.0, machine - sum(used.values())) / seconds,
        **told,
    }


def _peak_mb(pid: int) -> float:
    """Return the highest resident memory so far, or the present one where the system does not keep it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        try:
            return float(psutil.Process(pid).memory_info().rss / _MB)
        except psutil.Error:
            return 0.0


def _machine_cpu_s() -> float:
    """Return the CPU seconds used on this machine by all processes."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # The time of guests is counted in that of users.
    return float(sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))
