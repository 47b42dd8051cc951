"""A view of one stream: what it holds, single messages, and how many match the subject filters."""

from collections.abc import Sequence
from contextlib import suppress

from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from projector.domain.messages import Message, StreamState
from projector.errors import BrokerUnavailableError, StreamMissingError
from projector.stream.connection import RawClient, translated
from projector.stream.consumers import count_after
from projector.stream.units import unix_ms


class StreamView:
    """Reads a stream without following it.

    Every method raises BrokerUnavailableError if NATS does not answer.
    """

    def __init__(self, client: RawClient, stream: str, filters: Sequence[str]) -> None:
        """Use a connected client; `filters` select the messages that are counted."""
        self._client = client
        self._stream = stream
        self._filters = tuple(filters)

    async def state(self) -> StreamState:
        """Return what the stream holds now.

        Raises:
            StreamMissingError: the stream does not exist.
        """
        async with translated():
            try:
                info = await self._client.api.stream_info(self._stream)
            except NotFoundError as error:
                raise StreamMissingError(self._stream) from error
        if info.created is None:
            raise BrokerUnavailableError("NATS did not report when the stream was created")
        return StreamState(
            created_at=unix_ms(info.created),
            first=max(info.state.first_seq, 1),
            last=info.state.last_seq,
            began=info.config.first_seq or 1,
            deleted=info.state.num_deleted or 0,
        )

    async def deleted(self) -> frozenset[int]:
        """Return the positions between the first and the last message whose messages were deleted."""
        async with translated():
            answer = await self._client.ask(f"STREAM.INFO.{self._stream}", {"deleted_details": True})
        return frozenset(answer["state"].get("deleted") or ())

    async def message(self, position: int) -> Message | None:
        """Return the message at a position, or None if the stream no longer holds it."""
        async with translated():
            try:
                raw = await self._client.api.get_msg(self._stream, position)
            except NotFoundError:
                return None
        return _message(raw)

    async def count_after(self, position: int) -> int:
        """Return how many messages after a position match the filters.

        Only a consumer can count them, so one is created and deleted again.

        Raises:
            StreamMissingError: the stream does not exist.
        """
        async with translated():
            return await count_after(self._client, self._stream, self._filters, position)

    async def last(self) -> Message | None:
        """Return the newest matching message; None if there is none."""
        found: list[Message] = []
        async with translated():
            for subject in self._filters:
                with suppress(NotFoundError):
                    found.append(_message(await self._client.api.get_last_msg(self._stream, subject)))
        return max(found, default=None, key=lambda message: message.position)

    async def first_after(self, position: int) -> Message | None:
        """Return the first matching message after a position; None if there is none."""
        found: list[Message] = []
        async with translated():
            for subject in self._filters:
                with suppress(NotFoundError):
                    raw = await self._client.api.get_msg(self._stream, position + 1, subject, next=True)
                    found.append(_message(raw))
        return min(found, default=None, key=lambda message: message.position)


def _message(raw: RawStreamMsg) -> Message:
    if raw.time is None or raw.seq is None:
        raise BrokerUnavailableError("NATS did not report where and when a message was stored")
    return Message(raw.seq, unix_ms(raw.time), raw.subject or "", raw.data or b"", raw.headers)
