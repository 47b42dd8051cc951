"""The decoder under atheris, which looks for payloads that reach new code.

Needs the `fuzz` extra: `pip install --editable '.[fuzz]'`, then `python -m tests.fuzz.guided -runs=1000000`.
"""

import sys

import atheris

with atheris.instrument_imports(include=["projector.stream"]):
    from tests.fuzz.mutator import TYPES, check

from projector.domain.messages import Message
from projector.stream import subjects

KINDS = tuple((revision, event_type) for revision, types in TYPES.items() for event_type in types)


def one(data: bytes) -> None:
    """Decode one message; its first byte chooses revision and type."""
    if data:
        revision, event_type = KINDS[data[0] % len(KINDS)]
        check(revision, Message(7, 1_700_000_000_500, subjects.build("kpc", event_type), data[1:]))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
