"""A stream in memory, with the ports `StreamView` and `Consumer`."""

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from projector.app.ports import Source
from projector.domain.messages import Delivery, Message, StreamState
from projector.errors import BrokerRefusedError, BrokerUnavailableError, DeliveryInterruptedError, StreamMissingError
from projector.stream import subjects
from tests.support.fixtures import Wire
from tests.support.memory.connections import Connection, Connections

T = 1_700_000_000_000


class MemoryStream:
    """A stream, the actions of publishers and operators, and the faults of its broker."""

    def __init__(self, name: str = "S", *, originators: Iterable[str] = ()) -> None:
        """Begin without messages; consumers get those of some originators, or of all if none is named."""
        self.name = name
        self.connections = Connections(BrokerUnavailableError)
        self.interruptions = 0
        self.jump = 0
        """Consumers that are already positioned skip everything up to here, as those of a faulty server do."""
        self.replicated = sys.maxsize
        """Consumers know of nothing after this position, as if their leader were a replica that is behind."""
        self.discarded = 0
        """How many consumers were abandoned."""
        self.began = 1
        """Position of the first message; see `StreamState.began`."""
        self.floor = 0
        """The last position that was acknowledged."""
        self._filters = subjects.filters(originators)
        self._now = self._created_at = T
        self._exists = True
        self._last = 0
        self._messages: dict[int, Message] = {}

    async def publish(self, *wires: Wire, headers: dict[str, str] | None = None) -> int:
        """Store messages, a millisecond apart; return the position of the last."""
        for wire in wires:
            self.store(wire, headers)
        return self._last

    def store(self, wire: Wire, headers: dict[str, str] | None = None) -> None:
        self._now += 1
        self._last += 1
        self._messages[self._last] = Message(self._last, self._now, *wire, headers)

    async def trim(self, first: int) -> None:
        """Remove every message before a position, as retention does."""
        await self.delete(*(position for position in self._messages if position < first))

    async def delete(self, *positions: int) -> None:
        for position in positions:
            del self._messages[position]

    async def remove(self) -> None:
        """Remove the stream with all its messages."""
        self._messages.clear()
        self._exists = False
        await self.interrupt()

    async def recreate(self) -> None:
        """Replace the stream with an empty one of the same name."""
        await self.remove()
        self._exists = True
        self._last = 0
        self._now += 1
        self._created_at = self._now

    async def restart_after_an_edit(self) -> None:
        """Change the creation time, as NATS does (nats-server issue 8470), and cut every connection."""
        self._now += 1
        self._created_at = self._now
        self.connections.lose()

    async def interrupt(self) -> None:
        """Make every consumer fail until its next `seek`."""
        self.interruptions += 1

    async def lose_connections(self) -> None:
        self.connections.lose()

    async def acknowledged(self) -> int:
        return self.floor

    @asynccontextmanager
    async def open(self, *, batch_size: int = 100) -> AsyncIterator[Source]:
        """Connect; see `ports.OpenSource`."""
        connection = await self.connections.connect()
        try:
            yield Source(view=MemoryView(self, connection), consumer=MemoryConsumer(self, connection, batch_size))
        finally:
            self.connections.disconnect(connection)

    def state(self) -> StreamState:
        if not self._exists:
            raise StreamMissingError(self.name)
        first = min(self._messages, default=self._last + 1)
        deleted = self._last + 1 - first - len(self._messages)
        return StreamState(self._created_at, first, self._last, self.began, deleted)

    def message(self, position: int) -> Message | None:
        if position < 1:
            raise BrokerRefusedError(f"there is no position {position}")
        return self._messages.get(position)

    def deleted(self) -> frozenset[int]:
        state = self.state()
        return frozenset(range(state.first, state.last + 1)) - self._messages.keys()

    def after(self, position: int) -> list[Message]:
        """Return the messages after a position that match the filters."""
        return [
            message
            for message in self._messages.values()
            if message.position > position and any(_matches(message.subject, one) for one in self._filters)
        ]


class MemoryView:
    """The port `StreamView`."""

    def __init__(self, stream: MemoryStream, connection: Connection) -> None:
        self._stream = stream
        self._connection = connection

    async def state(self) -> StreamState:
        await self._connection.turn()
        return self._stream.state()

    async def deleted(self) -> frozenset[int]:
        await self._connection.turn()
        return self._stream.deleted()

    async def message(self, position: int) -> Message | None:
        await self._connection.turn()
        return self._stream.message(position)

    async def first_after(self, position: int) -> Message | None:
        await self._connection.turn()
        return next(iter(self._stream.after(position)), None)


class MemoryConsumer:
    """The port `Consumer`.

    `seek` prefetches up to one batch: messages that leave the stream afterwards are still delivered.
    """

    def __init__(self, stream: MemoryStream, connection: Connection, batch_size: int) -> None:
        self._stream = stream
        self._connection = connection
        self._batch_size = batch_size
        self._interruptions = stream.interruptions
        self._jumped = stream.jump
        self._buffer: list[Message] = []
        self._sent = 0
        """The position of the last message sent."""
        self._pending = 0
        """Messages that followed it then."""

    async def seek(self, after: int) -> int:
        await self._connection.turn()
        self._stream.state()
        self._interruptions = self._stream.interruptions
        self._jumped = self._stream.jump
        self._buffer.clear()
        self._sent = after
        self._fill()
        return await self.count_pending()

    async def next(self, linger_s: float) -> Delivery | None:
        del linger_s  # available messages are delivered at once
        await self._turn()
        self._fill()
        if not self._buffer:
            return None
        delivery = Delivery(tuple(self._buffer), self._pending, acknowledge_to=str(self._sent))
        self._buffer.clear()
        return delivery

    async def count_pending(self) -> int:
        await self._turn()
        return len(self._buffer) + len(self._following())

    async def acknowledge(self, delivery: Delivery) -> None:
        await self._connection.turn()
        if delivery.acknowledge_to:
            self._stream.floor = int(delivery.acknowledge_to)

    async def discard(self) -> None:
        await self._connection.turn()
        self._stream.discarded += 1

    def _fill(self) -> None:
        if self._jumped != self._stream.jump:
            self._jumped = self._stream.jump
            self._sent = max(self._sent, self._jumped)
        following = self._following()
        sent = following[: self._batch_size - len(self._buffer)]
        if sent:
            self._buffer += sent
            self._sent = sent[-1].position
            self._pending = len(following) - len(sent)

    def _following(self) -> list[Message]:
        return [message for message in self._stream.after(self._sent) if message.position <= self._stream.replicated]

    async def _turn(self) -> None:
        await self._connection.turn()
        if self._interruptions != self._stream.interruptions:
            raise DeliveryInterruptedError("delivery was interrupted")


def _matches(subject: str, pattern: str) -> bool:
    """Return whether a subject matches a filter, which ends in `>`."""
    *wanted, _ = pattern.split(".")
    tokens = subject.split(".")
    return len(tokens) > len(wanted) and all(one in ("*", token) for one, token in zip(wanted, tokens, strict=False))
