"""Reads what NATS reports on its monitoring endpoint only: how often it syncs its files."""

import asyncio
import json
from http.client import HTTPException
from typing import Any
from urllib.request import urlopen

from projector.stream.units import NS_PER_S


async def read_sync_interval(monitoring: str | None, *, timeout_s: float) -> tuple[float | None, tuple[str, ...]]:
    """Return how often a server syncs its files, or why that is unknown."""
    what = "how often NATS syncs its files (sync_interval)"
    if monitoring is None:
        return None, (f"{what}: only its monitoring endpoint reports it; pass its URL with --nats-monitoring",)

    def read() -> dict[str, Any]:
        with urlopen(f"{monitoring.rstrip('/')}/varz", timeout=timeout_s) as answer:  # noqa: S310 - the user chose the URL
            found: dict[str, Any] = json.load(answer)["jetstream"]["config"]
            return found

    try:
        config = await asyncio.to_thread(read)
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        return None, (f"{what}: {monitoring} does not report it: {error}",)
    if config.get("sync_always"):
        return 0, ()
    if "sync_interval" not in config:
        return None, (f"{what}: {monitoring} does not report it, like all servers before 2.10",)
    return config["sync_interval"] / NS_PER_S, ()
