"""The decoder under atheris, which looks for payloads that reach new code.

Needs the `fuzz` extra: `pip install --editable '.[fuzz]'`, then `python -m tests.fuzz.guided -runs=1000000`.
"""

import sys

import atheris

with atheris.instrument_imports(include=["projector.stream"]):
    from tests.fuzz.mutator import TYPES, check

from projector.domain.messages import Message
from projector.stream import subjects


def one(data: bytes) -> None:
    """Decode one message; its first byte chooses the type."""
    if data:
        check(Message(7, 1_700_000_000_500, subjects.build("kpc", TYPES[data[0] % len(TYPES)]), data[1:]))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
