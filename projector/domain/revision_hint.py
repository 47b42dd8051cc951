"""The hint in the detail of a dead letter: another revision that can decode the message."""

import re

_HINT = re.compile(r"; it reads as a message of revision (\S+): see PROJECTOR_REVISION$")


def with_hint(detail: str, revision: str) -> str:
    """Return a detail with the hint appended."""
    return f"{detail}; it reads as a message of revision {revision}: see PROJECTOR_REVISION"


def hinted_revision(detail: str) -> str | None:
    """Return the revision that the hint in a detail names, or None."""
    found = _HINT.search(detail)
    return found and found[1]
