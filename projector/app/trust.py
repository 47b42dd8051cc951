"""Checks whether a stream is still the one that was folded.

Its creation time is not enough: NATS changes it when a server is restarted after an edit of the stream
(nats-server issue 8470). The message at the checkpoint is enough. NATS never reuses a position, so if the stream
holds the message that was folded there (same stored time, same payload), it also holds everything before it,
or has lost it to retention. A stream that was created again, restored from elsewhere, or lost its tail
and stored other messages in its place, holds another message there.
"""

from projector.app.ports import StreamView
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.messages import Message, StreamState
from projector.errors import StreamReplacedError

_OTHER_TIME = "it was created at another time"


async def check_stream(view: StreamView, checkpoint: Checkpoint) -> StreamState:
    """Check that a stream continues what was folded up to a checkpoint; return its state.

    Raises:
        StreamMissingError: the stream does not exist.
        StreamReplacedError: the stream was recreated, restored, or lost its tail.
    """
    state = await view.state()
    evidence = await _evidence(view, state, checkpoint)
    if evidence is not None:
        raise StreamReplacedError(checkpoint.stream, evidence)
    return state


async def is_same_stream(view: StreamView, state: StreamState, checkpoint: Checkpoint) -> bool:
    """Return whether the stream is the one whose messages were folded up to a checkpoint."""
    return await _evidence(view, state, checkpoint) is None


async def _evidence(view: StreamView, state: StreamState, checkpoint: Checkpoint) -> str | None:
    at_checkpoint = checkpoint.anchor is not None and 0 < checkpoint.position <= state.last
    return replacement_evidence(state, checkpoint, await view.message(checkpoint.position) if at_checkpoint else None)


def replacement_evidence(state: StreamState, checkpoint: Checkpoint, message: Message | None) -> str | None:
    """Return why a stream is not the one that was folded, or None if it is.

    `message` is what the stream holds at the checkpoint; None if nothing.
    """
    moved = state.created_at != checkpoint.stream_created_at
    position, anchor = checkpoint.position, checkpoint.anchor
    if state.last < position:
        found = f"it ends at position {state.last}, before the checkpoint at {position}"
    elif anchor is not None and position < 1:
        found = f"the checkpoint is at position {position}, where no message can be, but has an anchor"
    elif anchor is not None and message is not None and Anchor.of(message) != anchor:
        found = f"it holds another message than the one folded at position {position}"
    elif moved and position > 0 and (anchor is None or message is None):
        found = f"the message at position {position}, which would identify the stream, is gone"
    else:
        # The absence of a message proves nothing: retention or a purge may have removed it.
        return None
    return f"{_OTHER_TIME}, and {found}" if moved else found
