"""The sentence in the detail of a dead letter that names the revision in which its message can be read."""

import re

_HINT = re.compile(r"; it reads as a message of revision (\S+): see PROJECTOR_REVISION$")


def with_hint(detail: str, revision: str) -> str:
    """Return a detail that ends in the hint at a revision."""
    return f"{detail}; it reads as a message of revision {revision}: see PROJECTOR_REVISION"


def hinted_revision(detail: str) -> str | None:
    """Return the revision that a detail hints at, or None."""
    found = _HINT.search(detail)
    return found and found[1]
