"""Reads a stream from a position on, in order, so that no loss goes unnoticed.

Retention, a purge or a limit can remove messages before they are delivered.
The reader tells such a gap from the holes that messages of other subjects leave, and the caller decides what it means.

A server can also skip messages that are still in the stream (nats-server issue 8571: after a purge of one filter's
subjects, a consumer with several filters jumps over those of the others), and then say that nothing is pending.
In a cluster, the leader of the consumer can lag behind the stream, and then reports that nothing is pending as well.
So the reader asks the stream itself, not the consumer, what comes next: when it begins, when it is idle, at the end,
and at each hole that a deletion may have made the consumer jump over.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import NamedTuple, NoReturn, TypeAlias

from projector.app.ports import Source
from projector.domain.messages import Delivery, Message
from projector.errors import MessagesSkippedError

_MOST_JOINED_BYTES = 8 * 1024 * 1024
_JOINING_S = 1.0


class Gap(NamedTuple):
    """Positions that left the stream before they were delivered."""

    after: int
    """The last position before the gap."""
    first: int
    """The first position after it."""


class Idle(NamedTuple):
    """Nothing arrived for about a second."""

    pending: int
    """Matching messages that were not delivered yet; 0 at the end of the stream."""


Reading: TypeAlias = Delivery | Gap | Idle


class Reader:
    """Reads what follows a position.

    Every method raises TransientError if the source cannot be relied on any more.
    """

    def __init__(self, source: Source, *, linger_s: float) -> None:
        """Read from an open source; `linger_s` is how long a delivery waits for more messages after its first."""
        self._source = source
        self._linger_s = linger_s
        self._ready: deque[Delivery | Gap] = deque()
        self._first = 0
        """Where the stream began when the reader was last idle; 0 if it has not been idle since the last delivery."""
        self._expected: int | None = None
        """Position of a message that the stream holds and the consumer has to deliver next."""
        self._deleted = 0
        """How many messages between the first and the last were deleted, when this was last looked at."""
        self._suspect_through = 0
        """Holes up to here may be messages that the consumer skipped when others were deleted."""
        self._end: int | None = None
        """The end of the stream when nothing was pending for the first time."""
        self.position = 0
        """Everything up to here was read."""
        self.pending = 0
        """Matching messages after that, as far as is known."""

    async def seek(self, after: int) -> Gap | None:
        """Continue after a position; return the gap that is there, if there is one."""
        self.pending = await self._source.consumer.seek(after)
        state = await self._source.view.state()
        self.position = max(after, state.began - 1)
        self._ready.clear()
        self._first = 0
        self._deleted, self._suspect_through = state.deleted, 0
        gap = self._skip_to(state.first) if state.first > self.position + 1 else None
        await self._expect()
        return gap

    async def next(self, *, joined: int = 0) -> Reading:
        """Wait for messages, and return them, a gap before them, or that nothing arrived.

        The deliveries of a second are joined as long as they have at most `joined` messages, and 8 MB, together.
        """
        if not self._ready and not await self._receive(self._linger_s):
            return await self._idle()
        reading = self._ready.popleft()
        if isinstance(reading, Gap):
            return self._skip_to(reading.first)
        self._advance(reading)
        return await self._join(reading, joined) if joined > len(reading.messages) else reading

    async def is_at_end(self) -> bool:
        """Return whether everything was read that the stream held when the consumer first had nothing pending."""
        if self.pending:
            return False
        if self._end is None:
            self._end = (await self._source.view.state()).last
        following = await self._source.view.first_after(self.position) if self.position < self._end else None
        return following is None or following.position > self._end

    async def recount(self) -> int:
        """Ask how many matching messages follow, and return it."""
        self.pending = await self._source.consumer.count_pending()
        return self.pending

    async def _receive(self, linger_s: float) -> bool:
        """Wait for a delivery, and return whether there was one."""
        delivery = await self._source.consumer.next(linger_s)
        if delivery is None:
            return False
        await self._check_expected(delivery.messages[0].position)
        self._ready += await self._with_gaps(delivery)
        return True

    async def _join(self, delivery: Delivery, most: int) -> Delivery:
        """Return a delivery together with those that follow it; what is too large or a gap is left for later."""
        messages, size = list(delivery.messages), _size(delivery.messages)
        until = monotonic() + _JOINING_S
        while self.pending and (left_s := until - monotonic()) > 0:
            if not self._ready and not await self._receive(left_s):
                break
            following = self._ready[0]
            if isinstance(following, Gap) or len(messages) + len(following.messages) > most:
                break
            size += _size(following.messages)
            if size > _MOST_JOINED_BYTES:
                break
            self._ready.popleft()
            self._advance(following)
            messages += following.messages
            delivery = following
        return delivery._replace(messages=messages)

    def _advance(self, delivery: Delivery) -> None:
        self._first = 0
        self.position, self.pending = delivery.messages[-1].position, delivery.pending

    async def _idle(self) -> Idle | Gap:
        if self.pending:
            # What was known to be in the stream did not arrive. It would have, if it had still been there
            # when `_first` was asked for: that was before the wait.
            if self._first > self.position + 1:
                return self._skip_to(self._first)
            pending = await self._source.consumer.count_pending()
            self._first = (await self._source.view.state()).first
            if self._first <= self.position + 1:
                self.pending = pending
        else:
            # The message that was expected a second ago has not come.
            await self._check_expected(None)
            await self._expect()
        return Idle(self.pending)

    async def _expect(self) -> None:
        """Remember which message the consumer has to deliver next."""
        following = await self._source.view.first_after(self.position)
        self._expected = None if following is None else following.position

    async def _check_expected(self, delivered: int | None) -> None:
        """Make sure that the message that was expected is the one delivered, or has left the stream.

        Raises:
            MessagesSkippedError: the consumer has skipped it.
        """
        expected, self._expected = self._expected, None
        if expected is None or expected <= self.position or (delivered is not None and delivered <= expected):
            return
        if await self._source.view.message(expected) is not None:
            await self._skipped(expected)

    async def _check_holes(self, messages: Sequence[Message]) -> None:
        """Make sure that the holes between messages are not messages that the consumer skipped.

        Raises:
            MessagesSkippedError: one is.
        """
        after = self.position
        for message in messages:
            if after >= self._suspect_through:
                return
            if message.position > after + 1:
                following = await self._source.view.first_after(after)
                if following is not None and following.position < message.position:
                    await self._skipped(following.position)
            after = message.position

    async def _skipped(self, position: int) -> NoReturn:
        await self._source.consumer.discard()
        raise MessagesSkippedError(position)

    async def _with_gaps(self, delivery: Delivery) -> list[Delivery | Gap]:
        """Return a delivery, in parts if there are gaps in it."""
        messages = delivery.messages
        if messages[-1].position == self.position + len(messages):
            return [delivery]
        state = await self._source.view.state()
        if state.deleted != self._deleted:
            self._deleted, self._suspect_through = state.deleted, state.last
        await self._check_holes(messages)
        return list(_split(delivery, self.position, state.first))

    def _skip_to(self, first: int) -> Gap:
        gap = Gap(self.position, first)
        self.position = first - 1
        self._first = 0
        return gap


def _split(delivery: Delivery, after: int, first: int) -> Iterator[Delivery | Gap]:
    """Yield the parts of a delivery, with a gap before each that follows positions which left the stream.

    `after` is the position before the delivery, and `first` where the stream begins now.
    Other subjects leave holes too, but what was in a hole before `first` is unknown, so it counts as a gap.
    """
    messages = delivery.messages
    begin = 0
    for index, message in enumerate(messages):
        if first > after + 1 < message.position:
            if index > begin:
                pending = delivery.pending + len(messages) - index
                yield Delivery(messages=messages[begin:index], pending=pending, acknowledge_to="")
            yield Gap(after, message.position)
            begin = index
        after = message.position
    yield delivery._replace(messages=messages[begin:])


def _size(messages: Sequence[Message]) -> int:
    """Return how many bytes messages hold."""
    return sum(
        len(payload) + (sum(map(len, headers.values())) if headers else 0) for _, _, _, payload, headers in messages
    )
