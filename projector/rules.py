"""The version of the rules: a fingerprint of everything that decides which rows a stream implies.

Counted by hand it would be forgotten the one time it matters.
Comments, docstrings and layout do not count, so that tidying up does not ask for a rebuild.
"""

import io
import json
import tokenize
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from fastavro.schema import to_parsing_canonical_form

_PACKAGE = Path(__file__).parent
_DECISIVE = (
    "domain/*.py",
    "stream/codec.py",
    "stream/limits.py",
    "stream/subjects.py",
    "storage/columns.py",
)
_LAYOUT = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT})
_LINE_STARTS = frozenset({tokenize.ENCODING, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT})


def version(revision: str, schemas: Path) -> str:
    """Return the version of the rules of this code for a revision of the protocol: twelve hex digits."""
    digest = sha256()
    for pattern in (*_DECISIVE, f"stream/{revision.replace('-', '_')}.py"):
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(f"{path.relative_to(_PACKAGE).as_posix()}\0{''.join(_tokens(path.read_bytes()))}\0".encode())
    for path in sorted((schemas / revision).glob("*.avsc")):
        form = to_parsing_canonical_form(json.loads(path.read_text(encoding="utf-8")))
        digest.update(f"{path.name}\0{form}\0".encode())
    return digest.hexdigest()[:12]


def _tokens(source: bytes) -> Iterator[str]:
    """Yield a module's tokens without what only people read."""
    previous = tokenize.ENCODING
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        docstring = token.type == tokenize.STRING and previous in _LINE_STARTS
        if token.type not in _LAYOUT and token.type != tokenize.ENCODING and not docstring:
            yield token.string
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            previous = token.type
