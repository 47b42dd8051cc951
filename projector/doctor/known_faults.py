"""Versions of NATS that can lose a stream, which is the only copy of the events.

Other faults are left to the release notes of the servers: they change nothing that `doctor` would recommend.
"""

from collections.abc import Sequence
from typing import NamedTuple

from projector.doctor.findings import Version, version_text


class Fault(NamedTuple):
    """A fault of the versions from `first` up to, but not including, `fixed`."""

    first: Version
    fixed: Version
    what: str
    source: str
    only_in_clusters: bool = False


_CROSS_ACCOUNT = "any user who may publish to $JS.> can delete the streams of every account"

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
)


def known_faults(version: Version, *, clustered: bool) -> str | None:
    """Return the faults of a version of NATS, or None."""
    found = [
        f"{fault.what} ({fault.source}, fixed in {version_text(fault.fixed)})"
        for fault in NATS_FAULTS
        if fault.first <= version < fault.fixed and (clustered or not fault.only_in_clusters)
    ]
    return f"this is NATS {version_text(version)}: {'; '.join(found)}" if found else None
