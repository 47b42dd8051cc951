"""Decodes messages, as far as they concern a share of the endpoints."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from projector.app.ports import Decoder
from projector.domain.events import Event
from projector.domain.messages import DeadLetter, Message, Skipped
from projector.domain.shards import Share
from projector.errors import PoisonError

T = TypeVar("T")

_YIELD_EVERY = 100
"""Yield to the event loop after this many messages or events, so that Postgres never waits long for a statement."""


@dataclass(slots=True, kw_only=True)
class Decoded:
    """What messages say, without the state of any endpoint."""

    events: list[Event] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Messages of unknown types, by type."""


async def decode(decoder: Decoder, messages: Sequence[Message], share: Share | None) -> Decoded:
    """Decode messages; one that cannot be decoded becomes a dead letter. Without a share, everything is wanted."""
    decoded = Decoded()
    for chunk in chunks(messages):
        if share is None:
            _decode_all(decoder, chunk, decoded)
        else:
            _decode_share(decoder, chunk, decoded, share)
        await asyncio.sleep(0)
    return decoded


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the parts between which to yield to the event loop."""
    for start in range(0, len(items), _YIELD_EVERY):
        yield items[start : start + _YIELD_EVERY]


def _decode_all(decoder: Decoder, messages: Sequence[Message], decoded: Decoded) -> None:
    decode, events = decoder.decode, decoded.events
    for message in messages:
        try:
            found = decode(message)
        except PoisonError as error:
            decoded.dead_letters.append(DeadLetter(message, error.reason, error.detail))
            continue
        if isinstance(found, Skipped):
            decoded.skipped[found.type] += 1
        else:
            events += found


def _decode_share(decoder: Decoder, messages: Sequence[Message], decoded: Decoded, share: Share) -> None:
    for message in messages:
        position = message.position
        is_ours = share.has_message(position)
        if not is_ours:
            # Most messages name one endpoint, near their beginning: the rest need not be read.
            endpoint_id = decoder.glance(message)
            if endpoint_id is not None and not share.has_endpoint(endpoint_id, position):
                continue
        try:
            found = decoder.decode(message)
        except PoisonError as error:
            if is_ours:
                decoded.dead_letters.append(DeadLetter(message, error.reason, error.detail))
            continue
        if isinstance(found, Skipped):
            if is_ours:
                decoded.skipped[found.type] += 1
        else:
            decoded.events += narrowed(found, share)


def narrowed(events: Sequence[Event], share: Share) -> Iterator[Event]:
    """Yield the events, each about only those of its endpoints that are in a share."""
    for event in events:
        position = event.stamp.position
        named = event.endpoint_ids
        ours = tuple(one for one in named if share.has_endpoint(one.encode(), position))
        if len(ours) == len(named):
            yield event
        elif ours:
            yield event._replace(endpoint_ids=ours)
