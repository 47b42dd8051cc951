import pytest

from projector.domain.sentences import described, newer, sender
from projector.domain.stamps import Register, Stamp
from tests.support.strategies import stamp

HELD = stamp(3, at=200)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (HELD, "from kpc/x at 1970-01-01T00:00:00.2+00:00 (position 3)"),
        (stamp(3, at=200, replica=None), "from kpc (replica unknown) at 1970-01-01T00:00:00.2+00:00 (position 3)"),
        (Stamp(0, 200, "", None), "at 1970-01-01T00:00:00.2+00:00"),
        (Stamp(0, 200, "kpc", "x"), "from kpc/x at 1970-01-01T00:00:00.2+00:00"),
    ],
)
def test_an_event_is_described_as_far_as_it_is_known(event: Stamp, text: str) -> None:
    assert described(event) == text


def test_a_replica_is_named_with_its_originator() -> None:
    assert sender(HELD) == "kpc/x"


@pytest.mark.parametrize("held", [HELD, Register("v1", HELD)])
def test_only_an_event_that_is_not_superseded_is_a_reason(held: Stamp | Register[str]) -> None:
    assert newer("see {}", held, stamp(4, at=100, replica="y")) == f"see {described(HELD)}"
    assert newer("see {}", held, stamp(4, at=300, replica="y")) is None
    assert newer("see {}", None, HELD) is None
