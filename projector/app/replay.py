"""Reads a stream from a position on, up to one position after another that the caller names."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeAlias

from projector.app.ports import Source
from projector.app.reader import Gap, Idle, Reader
from projector.domain.messages import Delivery, Message
from projector.errors import DeliveryInterruptedError

_LINGER_S = 0.05

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the position reached and the one to reach."""


class Replay:
    """The messages of a source, each once.

    Every method raises DeliveryInterruptedError if messages left the stream before they were read.
    """

    def __init__(self, source: Source) -> None:
        """Read from an open source."""
        self._view = source.view
        self._reader = Reader(source, linger_s=_LINGER_S)
        self._left: Sequence[Message] = ()
        """Messages that were read and not yet returned."""

    async def begin(self, after: int) -> None:
        """Continue after a position, and fetch the first messages.

        Retention goes on: where the stream begins is certain only for messages at hand.
        So a gap before the first message is no loss, and the caller asks afterwards where the stream begins.
        """
        self._left = ()
        await self._reader.seek(after)
        while self._reader.pending and not self._left:
            reading = await self._reader.next()
            if isinstance(reading, Delivery):
                self._left = reading.messages

    async def batches_through(self, position: int) -> AsyncGenerator[Sequence[Message], None]:
        """Yield batches of messages up to and including a position; the rest is kept for the next call."""
        while self._left or await self._fetch(position):
            wanted = self._left
            if wanted[-1].position > position:
                wanted = [message for message in wanted if message.position <= position]
            self._left = self._left[len(wanted) :]
            if wanted:
                yield wanted
            if self._left:
                return

    def put_back(self, messages: Sequence[Message]) -> None:
        """Take messages back, to yield them again: what was made of them was rolled back."""
        self._left = [*messages, *self._left]

    async def _fetch(self, position: int) -> bool:
        """Fetch messages unless everything up to a position was read; return whether there are any."""
        if self._reader.position >= position:
            return False
        if not self._reader.pending and not await self._reader.recount():
            if (await self._view.state()).first > position:
                raise _lost(self._reader.position)
            return False
        while self._reader.pending:
            match await self._reader.next():
                case Delivery(messages=messages):
                    self._left = messages
                    return True
                case Gap(after=after):
                    raise _lost(after)
                case Idle():
                    pass
        return False


def _lost(after: int) -> DeliveryInterruptedError:
    return DeliveryInterruptedError(f"messages after position {after} left the stream before they were read")
