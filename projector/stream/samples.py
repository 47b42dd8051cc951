"""Reads a few of the newest messages of each event type, and tries them with every revision."""

import asyncio
from collections.abc import Sequence

from projector.domain.broker_info import Sample
from projector.domain.messages import Message
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.connection import RawClient
from projector.stream.view import StreamView

_PER_SUBJECT = 3
_STRIDE = 10
_ORIGINATORS_SAMPLED = 10


async def read_samples(
    client: RawClient, stream: str, codecs: Sequence[Codec], originators: Sequence[str], first: int
) -> tuple[Sample, ...]:
    """Return samples in stream order.

    `codecs` are those of every revision; `first` is the position where the stream begins.
    No originator means all of them; of many, a few are sampled.

    Raises:
        BrokerUnavailableError: NATS does not answer.
    """
    event_types = sorted({event_type for codec in codecs for event_type in codec.revision.event_types})
    views = (
        StreamView(client, stream, (subjects.build(originator, event_type),))
        for originator in originators[:_ORIGINATORS_SAMPLED] or ("*",)
        for event_type in event_types
    )
    found = await asyncio.gather(*(_newest(view, first) for view in views))
    messages = sorted((message for some in found for message in some), key=lambda message: message.position)
    return tuple(
        Sample(message.position, frozenset(codec.revision.name for codec in codecs if codec.reads(message)))
        for message in messages
    )


async def _newest(view: StreamView, first: int) -> Sequence[Message]:
    """Return the newest message that a view selects, and up to two before it.

    NATS finds the last message of a subject, and the next one from a position on.
    Earlier ones are searched for in steps that go further and further back.
    """
    newest = await view.last()
    if newest is None:
        return ()
    found = {newest.position: newest}
    back = 1
    start = newest.position
    while len(found) < _PER_SUBJECT and start > first:
        start = max(newest.position - back, first)
        message = await view.first_after(start - 1)
        if message is not None:
            found[message.position] = message
        back *= _STRIDE
    return tuple(found.values())
