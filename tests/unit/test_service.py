"""What a service manager receives over a real socket."""

import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from projector.app.notifications import Active, Heartbeat, Received, Retrying, StandingBy
from projector.domain.checkpoint import Checkpoint
from projector.domain.rules import Rules
from projector.errors import BrokerUnavailableError
from projector.monitoring import service as service_module
from projector.monitoring.service import ServiceManager

CHECKPOINT = Checkpoint(
    stream="S", stream_created_at=0, rules=Rules(version=1, revision="", originators=()), position=7
)

Hear = Callable[[], list[str]]


def listening(address: str) -> Iterator[Hear]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.setblocking(False)

        def hear() -> list[str]:
            heard = []
            try:
                while True:
                    heard += listener.recv(4096).decode().splitlines()
            except BlockingIOError:
                return heard

        yield hear


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def hear(path: str) -> Iterator[Hear]:
    yield from listening(path)


def test_service_manager_hears_ready_and_the_state(path: str, hear: Hear) -> None:
    with ServiceManager({"NOTIFY_SOCKET": path}) as service:
        service.notify(Heartbeat())
        assert hear() == []
        service.notify(Retrying(error=BrokerUnavailableError("NATS is not reachable:\nno route")))
        assert hear() == ["READY=1", "STATUS=retrying: NATS is not reachable: no route"]
        service.notify(Active(checkpoint=CHECKPOINT))
        assert hear() == ["READY=1", "STATUS=active from position 7"]
    assert hear() == ["STOPPING=1"]


def test_standby_is_ready(path: str, hear: Hear) -> None:
    with ServiceManager({"NOTIFY_SOCKET": path}) as service:
        service.notify(StandingBy())
        assert hear()[0] == "READY=1"


def test_watchdog_is_notified_only_as_often_as_needed(path: str, hear: Hear, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(service_module, "monotonic", lambda: now)
    with ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000000"}) as service:
        for _ in range(100):
            service.notify(Heartbeat())
        assert hear() == ["WATCHDOG=1"]
        now += 5
        service.notify(Received(messages=()))
        assert hear() == ["WATCHDOG=1"]
        now += 5
        service.notify(StandingBy())
        assert hear()[0] == "WATCHDOG=1"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_a_socket_may_be_abstract() -> None:
    name = f"projector-{secrets.token_hex(8)}"
    for hear in listening(f"\0{name}"):
        with ServiceManager({"NOTIFY_SOCKET": f"@{name}"}) as service:
            service.notify(StandingBy())
        assert hear()[0] == "READY=1"


def test_missing_service_manager_is_ignored(path: str) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1"}):
        with ServiceManager(environment) as service:
            service.notify(Heartbeat())
            service.notify(Active(checkpoint=CHECKPOINT))
