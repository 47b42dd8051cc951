from projector.app.notifications import Received
from projector.domain.messages import Message, Origin
from projector.monitoring.skew import ClockSkew


class Decoder:
    """Reports another replica for each message, and counts the requests."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def decode(self, message: Message) -> tuple[()]:
        raise AssertionError(message)

    def glance(self, message: Message) -> bytes | None:
        raise AssertionError(message)

    def may_name(self, message: Message, endpoint_id: bytes) -> bool:
        raise AssertionError(message, endpoint_id)

    def origin(self, message: Message) -> Origin:
        self.asked.append(message.position)
        return Origin("kpc", str(message.position), message.stored_at + 250)


def messages(count: int, first: int = 1) -> list[Message]:
    return [Message(position, 1000, "", b"") for position in range(first, first + count)]


def test_few_messages_of_each_batch_are_sampled_evenly() -> None:
    for count in (1, 7, 8, 9, 16, 17, 8000):
        decoder = Decoder()
        ClockSkew(decoder, lambda *_: None).notify(Received(messages=messages(count)))
        assert min(count, 5) <= len(decoder.asked) <= 8, count
        assert max(decoder.asked) - min(decoder.asked) >= count / 2 - 1


def test_a_clock_that_is_ahead_is_negative() -> None:
    noted: list[tuple[str, str, float]] = []
    ClockSkew(Decoder(), lambda *skew: noted.append(skew)).notify(Received(messages=messages(1)))
    assert noted == [("kpc", "1", -0.25)]


def test_excess_replicas_share_one_label() -> None:
    noted: set[tuple[str, str]] = set()
    skew = ClockSkew(Decoder(), lambda originator, replica, _: noted.add((originator, replica)))
    for position in range(1, 1000):
        skew.notify(Received(messages=messages(1, position)))
    assert len(noted) == 51
    assert ("(other)", "(other)") in noted


def test_long_replica_name_is_not_a_label() -> None:
    class Boaster(Decoder):
        def origin(self, message: Message) -> Origin:
            return Origin("kpc", "x" * 1_000_000, message.stored_at)

    noted: list[tuple[str, str, float]] = []
    ClockSkew(Boaster(), lambda *skew: noted.append(skew)).notify(Received(messages=messages(1)))
    assert noted == [("(other)", "(other)", 0)]
