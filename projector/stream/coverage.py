"""Which subjects a stream stores."""

from collections.abc import Iterable, Sequence

from projector.domain.broker_info import Coverage


def coverage(stored: Iterable[str], subject: str) -> Coverage:
    """Return how much of a subject with wildcards is covered by the subjects of a stream."""
    wanted = subject.split(".")
    patterns = [pattern.split(".") for pattern in stored]
    if any(_covers(pattern, wanted) for pattern in patterns):
        return Coverage.WHOLLY
    return Coverage.PARTLY if any(_overlaps(pattern, wanted) for pattern in patterns) else Coverage.NOT_AT_ALL


def _covers(pattern: Sequence[str], wanted: Sequence[str]) -> bool:
    if pattern[:1] == [">"]:
        return bool(wanted)
    if not pattern or not wanted:
        return not pattern and not wanted
    fits = pattern[0] == wanted[0] or (pattern[0] == "*" and wanted[0] != ">")
    return fits and _covers(pattern[1:], wanted[1:])


def _overlaps(pattern: Sequence[str], wanted: Sequence[str]) -> bool:
    if not pattern or not wanted:
        return not pattern and not wanted
    if ">" in (pattern[0], wanted[0]):
        return True
    fits = pattern[0] == wanted[0] or "*" in (pattern[0], wanted[0])
    return fits and _overlaps(pattern[1:], wanted[1:])
