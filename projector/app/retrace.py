"""Explains an endpoint from the stream: folds it alone, in memory, and changes nothing."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing

from projector.app.explain import Scope
from projector.app.explanation import (
    ExplainedEvent,
    Explanation,
    Names,
    Replayed,
    Sender,
    moment,
    settle,
    settle_keys,
)
from projector.app.ports import Decoder, Source
from projector.app.replay import Progress, Replay
from projector.domain.endpoint import FACETS, Change, Endpoint, fold
from projector.domain.events import Event
from projector.domain.explanation import attributed, difference, parts_of, shown_by, why_rejected
from projector.domain.facets import Verdict
from projector.domain.messages import Message, Skipped
from projector.errors import NoEndpointError, PoisonError


class Retrace:
    """One replay for one endpoint."""

    def __init__(self, source: Source, decoder: Decoder, endpoint_id: str, scope: Scope, progress: Progress) -> None:
        """Read from an open source."""
        self._source = source
        self._decoder = decoder
        self._endpoint_id = endpoint_id
        self._id_bytes = endpoint_id.encode("utf-8", "surrogatepass")
        self._scope = scope
        self._progress = progress
        self._endpoint = Endpoint.unseen()
        self._events: deque[ExplainedEvent] = deque(maxlen=scope.limit)
        self._events_so_far = 0
        self._senders: dict[int, Sender] = {}
        """By position."""

    async def run(self, names: Names) -> Explanation:
        """Fold every event of the endpoint, up to the end of the stream or to the moment of the scope.

        Raises:
            NoEndpointError: no message of the stream names the endpoint.
            TransientError, FatalError: from reading.
        """
        messages = Replay(self._source)
        await messages.begin((await self._source.view.state()).first - 1)
        state = await self._source.view.state()
        async for message in self._until(messages, state.last):
            for event in self._decoded(message):
                self._fold(event, message)
        if not self._endpoint.last_event_seq:
            until = "" if self._scope.at is None else " up to that moment"
            raise NoEndpointError(self._endpoint_id, looked_in=f"the stream{until}")
        columns, _ = settle(attributed(self._endpoint.states, shown_by(self._endpoint)), names, self._senders)
        return Explanation(
            endpoint_id=self._endpoint_id,
            columns=columns,
            events=[*reversed(self._events)],
            older=self._events_so_far > len(self._events),
            keys=settle_keys(parts_of(self._endpoint), names),
            replayed=Replayed(position=state.last, first=state.first, gone=state.first - state.began + state.deleted),
        )

    async def _until(self, messages: Replay, last: int) -> AsyncIterator[Message]:
        """Yield the messages up to the end of the scope."""
        at = self._scope.at
        async with aclosing(messages.batches_through(last)) as batches:
            async for batch in batches:
                for message in batch:
                    if at is not None and message.stored_at > at:
                        return
                    yield message
                self._progress(batch[-1].position, last)
                await asyncio.sleep(0)

    def _decoded(self, message: Message) -> list[Event]:
        """Return the events of a message that name the endpoint; a dead letter has none."""
        if not self._decoder.may_name(message, self._id_bytes):
            return []
        try:
            events = self._decoder.decode(message)
        except PoisonError:
            return []
        if isinstance(events, Skipped):
            return []
        return [event for event in events if self._endpoint_id in event.endpoint_ids]

    def _fold(self, event: Event, message: Message) -> None:
        alone = event._replace(endpoint_ids=(self._endpoint_id,))
        changes: list[Change] = []
        fold([alone], {self._endpoint_id: self._endpoint}, changes)
        explained = [_explained(change, message) for change in changes]
        self._events.extend(sorted(explained, key=lambda event: event.facet))  # in the order of the log
        self._events_so_far += len(changes)
        self._senders[message.position] = Sender(message.type, *event.stamp[2:])


def _explained(change: Change, message: Message) -> ExplainedEvent:
    facet, stamp, event = FACETS[change.facet], change.event.stamp, change.event
    rejected = change.verdict is not Verdict.APPLIED
    before, after = difference(facet, change.before, change.after)
    changed = bool(after) or not (rejected or change.previous_seq)
    return ExplainedEvent(
        position=stamp.position,
        occurred_at=moment(stamp.occurred_at),
        event=message.type,
        facet=facet.name,
        verdict=change.verdict.value,
        originator=stamp.originator,
        replica=stamp.replica,
        reason=why_rejected(facet, change.verdict, (type(event),), event, change.before) if rejected else None,
        before=before if changed and change.previous_seq else None,
        after=after if changed else None,
    )
