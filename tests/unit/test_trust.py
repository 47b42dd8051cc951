from dataclasses import replace

import pytest

from projector.app.trust import is_same_stream, replacement_evidence
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.messages import Message, StreamState
from tests.support.memory.scene import RULES, MemoryScene

CREATED, MOVED = 1_000, 2_000
FOLDED = Message(5, 1_500, "kaa.x", b"folded")
OTHER = FOLDED._replace(payload=b"other")
LATER = FOLDED._replace(stored_at=1_501)
CHECKPOINT = Checkpoint(stream="S", stream_created_at=CREATED, rules=RULES, position=5, anchor=Anchor.of(FOLDED))
NOTHING_FOLDED = replace(CHECKPOINT, position=0, anchor=None)
GAP_CROSSED = replace(CHECKPOINT, anchor=None)
AT_THE_FIRST = replace(CHECKPOINT, position=1)
IMPOSSIBLE = replace(CHECKPOINT, position=0)


@pytest.mark.parametrize(
    ("checkpoint", "last", "message", "evidence", "evidence_where_moved"),
    [
        (CHECKPOINT, 5, FOLDED, None, None),
        (CHECKPOINT, 9, FOLDED, None, None),
        (CHECKPOINT, 9, OTHER, "holds another message than the one folded at position 5", "holds another message"),
        (CHECKPOINT, 9, LATER, "holds another message than the one folded at position 5", "holds another message"),
        (CHECKPOINT, 4, None, "ends at position 4, before the checkpoint at 5", "ends at position 4"),
        (CHECKPOINT, 9, None, None, "the message at position 5, which would identify the stream, is gone"),
        (GAP_CROSSED, 9, FOLDED, None, "which would identify the stream, is gone"),
        (GAP_CROSSED, 4, None, "ends at position 4", "ends at position 4"),
        (NOTHING_FOLDED, 0, None, None, None),
        (NOTHING_FOLDED, 9, None, None, None),
        (AT_THE_FIRST, 1, FOLDED, None, None),
        (AT_THE_FIRST, 1, None, None, "the message at position 1, which would identify the stream, is gone"),
        (IMPOSSIBLE, 9, None, "at position 0, where no message can be", "where no message can be"),
    ],
)
def test_stream_is_identified_by_its_end_and_the_message_at_the_checkpoint(
    checkpoint: Checkpoint,
    last: int,
    message: Message | None,
    evidence: str | None,
    evidence_where_moved: str | None,
) -> None:
    """The creation time alone proves nothing; if it changed, the message at the checkpoint must exist."""
    found = replacement_evidence(StreamState(CREATED, 1, last, 1, 0), checkpoint, message)
    moved = replacement_evidence(StreamState(MOVED, 1, last, 1, 0), checkpoint, message)
    for text, expected in ((found, evidence), (moved, evidence_where_moved)):
        assert (text is None) is (expected is None)
        assert (expected or "") in (text or "")
    assert moved is None or moved.startswith("it was created at another time, and ")


async def test_stream_is_not_queried_for_a_message_at_position_0(scene: MemoryScene) -> None:
    async with scene.stream.open() as source:
        assert not await is_same_stream(source.view, StreamState(CREATED, 1, 9, 1, 0), IMPOSSIBLE)


async def test_message_at_the_checkpoint_is_requested(scene: MemoryScene) -> None:
    await scene.stream.publish(*scene.connects(1, 3))
    await scene.fold()
    checkpoint = scene.database.checkpoint
    assert checkpoint is not None
    async with scene.stream.open() as source:
        state = scene.stream.state()
        assert await is_same_stream(source.view, state, checkpoint)
        assert await is_same_stream(source.view, state._replace(created_at=0), checkpoint)
        assert not await is_same_stream(source.view, state, replace(checkpoint, position=2))
        assert not await is_same_stream(source.view, state, replace(checkpoint, position=4))
        await scene.stream.delete(3)
        assert await is_same_stream(source.view, state, checkpoint)
        assert not await is_same_stream(source.view, state._replace(created_at=0), checkpoint)
