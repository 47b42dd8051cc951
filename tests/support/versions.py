"""The versions of the servers under test, and skip markers for tests."""

import re
import subprocess
from pathlib import Path

import pytest

from projector.doctor.known_faults import known_faults
from tests.support.servers import NATS_SERVER, POSTGRES_BIN

Version = tuple[int, ...]


def _version(executable: Path) -> Version:
    printed = subprocess.run([executable, "--version"], check=True, capture_output=True, text=True).stdout
    (found,) = re.findall(r"(?<=[ v])\d+(?:\.\d+)+(?=\s)", printed)
    return tuple(map(int, found.split(".")))


POSTGRES_VERSION = _version(POSTGRES_BIN / "postgres")
NATS_VERSION = _version(NATS_SERVER)

FAULTS = frozenset({"nats-fault"} if known_faults(NATS_VERSION, clustered=False) else ())
"""What `projector doctor` finds wrong with these versions themselves."""


def needs_nats(*version: int) -> pytest.MarkDecorator:
    """Skip a test of a feature that NATS has since a version."""
    return _needs("NATS", NATS_VERSION, version)


def needs_postgres(*version: int) -> pytest.MarkDecorator:
    """Skip a test of a feature that Postgres has since a version."""
    return _needs("Postgres", POSTGRES_VERSION, version)


def _needs(server: str, present: Version, needed: Version) -> pytest.MarkDecorator:
    return pytest.mark.skipif(present < needed, reason=f"needs {server} {'.'.join(map(str, needed))}")
