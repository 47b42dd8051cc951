"""Whether a stream is still the one that was folded."""

from projector.app.ports import StreamView
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.errors import StreamReplacedError


async def check_stream(view: StreamView, checkpoint: Checkpoint) -> None:
    """Make sure that what follows a checkpoint continues what was folded.

    Raises:
        StreamMissingError: the stream does not exist.
        StreamReplacedError: the stream was recreated, restored, or lost its tail.
    """
    state = await view.state()
    if state.created_at != checkpoint.stream_created_at:
        raise StreamReplacedError(checkpoint.stream, "it was created at another time")
    if state.last < checkpoint.position:
        evidence = f"it ends at position {state.last}, before the checkpoint at {checkpoint.position}"
        raise StreamReplacedError(checkpoint.stream, evidence)
    if checkpoint.anchor is None:
        return
    if checkpoint.position < 1:
        evidence = f"the checkpoint is at position {checkpoint.position}, where no message can be, and names one"
        raise StreamReplacedError(checkpoint.stream, evidence)
    message = await view.message(checkpoint.position)
    # A message that retention or a purge has taken proves nothing either way.
    if message is not None and Anchor.of(message) != checkpoint.anchor:
        raise StreamReplacedError(
            checkpoint.stream, f"it holds another message than the one folded at position {checkpoint.position}"
        )
