"""What the figures were measured on: facts of the machine and the versions, nothing that names it."""

import asyncio
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nats
import psutil

from benchmarks.servers import POSTGRES_SETTINGS

_PACKAGES = (
    "endpoint-state-projector",
    "nats-py",
    "asyncpg",
    "fastavro",
    "msgspec",
    "uvloop",
    "sqlalchemy",
    "faststream",
)


def describe() -> dict[str, Any]:
    """Return what is known before anything is measured."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1024**3),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "postgres_settings": POSTGRES_SETTINGS,
        "load_average_before": os.getloadavg()[0],
    }


def nats_version(url: str) -> str:
    """Return the version of a running server."""

    async def ask() -> str:
        async with await nats.connect(url) as client:
            found = client.connected_server_version
            return f"{found.major}.{found.minor}.{found.patch}"

    return asyncio.run(ask())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
