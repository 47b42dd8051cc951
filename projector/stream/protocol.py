"""The protocol revisions that this version supports."""

from collections.abc import Mapping
from typing import Any

from projector.errors import SettingError
from projector.stream import kaa_2017_04, kaa_2020_05
from projector.stream.revisions import Revision

REVISIONS: Mapping[str, Revision] = {
    revision.name: revision for revision in (kaa_2017_04.REVISION, kaa_2020_05.REVISION)
}
"""By name."""


def find_revision(name: str) -> Revision:
    """Return a revision by its name.

    Raises:
        SettingError: the revision is unknown.
    """
    try:
        return REVISIONS[name]
    except KeyError:
        raise SettingError(f"PROJECTOR_REVISION={name!r}: known revisions are {', '.join(sorted(REVISIONS))}") from None


def event_names(revision: str) -> Mapping[type[Any], str]:
    """Return the `{group}.{type}` of each type of domain event; none if this version does not know the revision."""
    known = REVISIONS.get(revision)
    return {} if known is None else known.names
