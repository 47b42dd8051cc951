"""A command imports only what it uses: unlike its run time, that can be tested exactly."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp",
    "alembic",
    "asyncpg",
    "fastavro",
    "msgspec",
    "nats",
    "prometheus_client",
    "pydantic",
    "sqlalchemy",
    "structlog",
    "uvloop",
}
ASYNCIO = {"asyncio"}
RICH = {"rich"}

IMPORTED = """
import json, sys
try:
    from projector.cli.main import main
    main()
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def imported(*arguments: str, code: str = IMPORTED) -> set[str]:
    """The top-level packages that a command has imported at its end."""
    ended = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
    return set(json.loads(ended.stderr.splitlines()[-1]))


def test_the_version_needs_no_driver_no_event_loop_and_no_rich_text() -> None:
    assert not imported("--version") & (HEAVY | ASYNCIO | RICH)


@pytest.mark.parametrize("command", ["", "run", "status", "verify", "dev", "dead-letters", "dead-letters retry"])
def test_the_help_needs_no_driver_and_no_event_loop(command: str) -> None:
    assert not imported(*command.split(), "--help") & (HEAVY | ASYNCIO)


def test_wrong_setting_is_reported_before_any_driver_is_imported() -> None:
    # Typer reads options with pydantic.
    assert not imported("status", "--database-url", "mysql://x") & (HEAVY - {"pydantic"})


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import json, sys, projector; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    assert {name for name in imported(code=code) if name.startswith("projector.")} == {"projector.version"}


@pytest.mark.parametrize(
    ("command", "unused"),
    [
        ("sql", {"aiohttp", "fastavro", "nats", "prometheus_client", "structlog", "uvloop"}),
        ("wait --seq 1", {"aiohttp", "fastavro", "nats", "prometheus_client", "structlog", "uvloop"}),
        ("dead-letters list", {"aiohttp", "fastavro", "nats", "prometheus_client", "structlog", "uvloop"}),
        ("status", {"fastavro", "prometheus_client", "structlog", "uvloop"}),
        ("simulate", {"alembic", "asyncpg", "prometheus_client", "sqlalchemy", "structlog"}),
    ],
)
def test_a_command_imports_what_it_uses_and_nothing_else(command: str, unused: set[str]) -> None:
    servers = ("--database-url", "postgresql://127.0.0.1:1/x", "--nats-url", "nats://127.0.0.1:1")
    statement = ("select 1",) if command == "sql" else ()
    assert not imported(*command.split(), *statement, *servers) & unused


MONITOR = """
import json, sys
from projector.app.observers import Observers
from projector.composition import Composition
from projector.settings import Settings
settings = Settings(database_url="postgresql://127.0.0.1/x", http="127.0.0.1:0")
Composition(settings).monitor(Observers(()), heartbeat_period_s=1, sample_period_s=1)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def test_the_nats_client_is_imported_before_the_thread_of_the_monitor_begins() -> None:
    """Its modules import each other: a second thread that imports it meanwhile would see it half initialized."""
    assert "nats" in imported(code=MONITOR)
