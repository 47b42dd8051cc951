"""The stream of published changes, as tests read it."""

import json
from contextlib import suppress
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

PREFIX = "fleet.changes"
NAME = "KAA_ENDPOINT_EVENTS_CHANGES"
ON: dict[str, Any] = {"changes": "7d", "publish": PREFIX}
"""The settings of a daemon that publishes."""


async def stored(jetstream: JetStreamContext, name: str = NAME, subject: str = ">") -> list[RawStreamMsg]:
    """Return the messages of a stream, in order."""
    found: list[RawStreamMsg] = []
    with suppress(NotFoundError):
        while True:
            position = (found[-1].seq or 0) + 1 if found else 1
            found.append(await jetstream.get_msg(name, position, subject=subject, next=True))
    return found


async def published(jetstream: JetStreamContext) -> list[dict[str, Any]]:
    """Return the changes in the stream, in order."""
    return [json.loads(message.data or b"") for message in await stored(jetstream)]
