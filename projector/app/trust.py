"""Whether the stream is still the one that was folded."""

from collections.abc import Sequence

from projector.app.ports import Source
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.messages import Message, StreamState
from projector.errors import DeliveryInterruptedError, EventsLostError, StreamReplacedError


async def check_source(source: Source, checkpoint: Checkpoint, *, accept_gap: bool) -> None:
    """Make sure that going on from a checkpoint continues what was folded.

    Raises:
        StreamReplacedError: the stream was recreated, restored, or lost its tail.
        EventsLostError: events left the stream before they were folded, and that was not accepted.
    """
    state = await source.state()
    if state.created_at != checkpoint.stream_created_at:
        raise StreamReplacedError(checkpoint.stream, "it was created at another time")
    if state.last < checkpoint.position:
        evidence = f"it ends at position {state.last}, before the checkpoint at {checkpoint.position}"
        raise StreamReplacedError(checkpoint.stream, evidence)
    await _check_anchor(source, checkpoint)
    _check_gap(state, checkpoint, accept_gap=accept_gap)


async def check_continuity(source: Source, stream: str, after: int, messages: Sequence[Message]) -> None:
    """Make sure that nothing left the stream behind a position, or between messages, before it was delivered.

    Raises:
        EventsLostError: something did.
    """
    if messages[-1].position == after + len(messages):
        return
    first = (await source.state()).first
    for message in messages:
        # Subjects of others leave holes too, but behind the beginning of the stream nobody can tell.
        if first > after + 1 < message.position:
            raise EventsLostError(stream, checkpoint=after, first=message.position)
        after = message.position


def check_reach(stream: str, after: int, first: int, *, accept_gap: bool) -> None:
    """Make sure that the messages of ours that are waited for behind a position have not left the stream.

    Raises:
        EventsLostError: they have.
        DeliveryInterruptedError: they have, and that is accepted; the next session begins behind them.
    """
    if first <= after + 1:
        return
    if accept_gap:
        raise DeliveryInterruptedError(f"messages behind position {after} left the stream before they came")
    raise EventsLostError(stream, checkpoint=after, first=first)


async def _check_anchor(source: Source, checkpoint: Checkpoint) -> None:
    if checkpoint.anchor is None:
        return
    if checkpoint.position < 1:
        evidence = f"the checkpoint is at position {checkpoint.position}, where no message can be, and names one"
        raise StreamReplacedError(checkpoint.stream, evidence)
    message = await source.message(checkpoint.position)
    # A message that retention or a purge has taken proves nothing either way.
    if message is not None and Anchor.of(message) != checkpoint.anchor:
        raise StreamReplacedError(
            checkpoint.stream, f"it holds another message than the one folded at position {checkpoint.position}"
        )


def _check_gap(state: StreamState, checkpoint: Checkpoint, *, accept_gap: bool) -> None:
    if state.first > checkpoint.position + 1 and not accept_gap:
        raise EventsLostError(checkpoint.stream, checkpoint=checkpoint.position, first=state.first)
