from hashlib import sha256

from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.messages import Message
from projector.domain.rules import Rules


def test_an_anchor_is_the_stored_time_of_a_message_and_the_hash_of_its_payload() -> None:
    message = Message(position=7, stored_at=1_700_000_000_000, subject="kaa", payload=b"payload")
    assert Anchor.of(message) == Anchor(stored_at=1_700_000_000_000, payload_hash=sha256(b"payload").digest())


def test_new_checkpoint_is_before_the_first_position_and_empty() -> None:
    rules = Rules(version=1, revision="kaa-2017-04", originators=())
    checkpoint = Checkpoint(stream="S", stream_created_at=1, rules=rules)
    assert (checkpoint.position, checkpoint.anchor, checkpoint.skipped, checkpoint.generation) == (0, None, {}, 0)
