"""Server versions with faults that hurt a projection, each with where it is written down.

Only what is certain: a wrong claim is worse than none.
"""

from collections.abc import Sequence
from typing import NamedTuple

Version = tuple[int, ...]


class Fault(NamedTuple):
    """A fault of the versions from `first` on and before `fixed`."""

    first: Version
    fixed: Version
    what: str
    source: str
    only_in_clusters: bool = False


_CROSS_ACCOUNT = "a user of any account who may publish to $JS.> can destroy the streams of every account"
_RESTORE = "a user who may restore one stream can overwrite any other"
_GIN = "a GIN index, such as one of yours on metadata, can become corrupt under concurrent updates"
_SUBSTRING = "substring() of long texts fails with a wrong complaint about their encoding"

NATS_FAULTS: Sequence[Fault] = (
    Fault((2, 2, 0), (2, 10, 27), _CROSS_ACCOUNT, "CVE-2025-30215"),
    Fault((2, 11, 0), (2, 11, 1), _CROSS_ACCOUNT, "CVE-2025-30215"),
    Fault(
        (2, 10, 20),
        (2, 10, 23),
        "a whole stream can be lost when servers of the cluster are killed",
        "nats-server issue 6888",
        only_in_clusters=True,
    ),
    Fault((2, 2, 0), (2, 11, 15), _RESTORE, "CVE-2026-33222"),
    Fault((2, 12, 0), (2, 12, 6), _RESTORE, "CVE-2026-33222"),
)
POSTGRES_FAULTS: Sequence[Fault] = (
    Fault((15, 0), (15, 6), _GIN, "release notes of 15.6"),
    Fault((16, 0), (16, 2), _GIN, "release notes of 16.2"),
    Fault((15, 16), (15, 17), _SUBSTRING, "release notes of 15.17"),
    Fault((16, 12), (16, 13), _SUBSTRING, "release notes of 16.13"),
    Fault((17, 8), (17, 9), _SUBSTRING, "release notes of 17.9"),
    Fault((18, 2), (18, 3), _SUBSTRING, "release notes of 18.3"),
)


def known_faults(faults: Sequence[Fault], server: str, version: Version, *, clustered: bool = False) -> str | None:
    """Return what is wrong with a version of a server, or None if nothing is known."""
    found = [
        f"{fault.what} ({fault.source}, fixed in {written(fault.fixed)})"
        for fault in faults
        if fault.first <= version < fault.fixed and (clustered or not fault.only_in_clusters)
    ]
    return f"this is {server} {written(version)}: {'; '.join(found)}" if found else None


def written(version: Version) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))
