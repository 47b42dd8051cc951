"""Inspects the durable consumers, one for each shard, and changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, TypeAlias

from projector.domain.broker_info import ConsumerInfo
from projector.stream.consumers import CONSUMER_DESCRIPTION
from projector.stream.pull import HEARTBEAT_S

_POLL_S = 0.2

Ask: TypeAlias = Callable[[str], Awaitable[dict[str, Any]]]
"""Returns the answer to a request to the JetStream API, which may be an error."""


async def inspect(ask: Ask, stream: str, names: Mapping[int, str], *, settles: bool) -> tuple[ConsumerInfo, ...]:
    """Return the consumers that exist; `names` are those to look for, by shard.

    If `settles`, wait, for a heartbeat and a half at most, until no client that has disconnected has pull requests:
    a server other than the one that it was connected to notices only at the next heartbeat.
    """
    found = await _consumers(ask, stream, names)
    until = monotonic() + 1.5 * HEARTBEAT_S
    while settles and any(consumer.waiting for consumer in found) and monotonic() < until:
        await asyncio.sleep(_POLL_S)
        found = await _consumers(ask, stream, names)
    return found


async def _consumers(ask: Ask, stream: str, names: Mapping[int, str]) -> tuple[ConsumerInfo, ...]:
    answers = {shard: await ask(f"CONSUMER.INFO.{stream}.{name}") for shard, name in names.items()}
    return tuple(
        _consumer_info(names[shard], shard, answer) for shard, answer in answers.items() if "error" not in answer
    )


def _consumer_info(name: str, shard: int, info: Mapping[str, Any]) -> ConsumerInfo:
    config = info["config"]
    filters = {config.get("filter_subject"), *config.get("filter_subjects", ())}
    return ConsumerInfo(
        name=name,
        shard=shard,
        created_by_projector=config.get("description") == CONSUMER_DESCRIPTION,
        pushes=bool(config.get("deliver_subject")),
        acknowledges=config["ack_policy"],
        filters=frozenset(filter(None, filters)),
        headers_only=config.get("headers_only", False),
        paused_until=config.get("pause_until") if info.get("paused") else None,
        prioritises=bool(config.get("priority_groups")),
        waiting=info.get("num_waiting", 0),
    )
