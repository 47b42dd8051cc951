"""Checks of the messages in the stream."""

from collections.abc import Sequence

from projector.doctor.findings import Check, Inspection

_DECISIVE = 5
"""The newest samples decide: older ones may be of a revision that is no longer in use."""
_ENOUGH = 3
_FOREIGN_NAMED = 3


def _other_revision(inspection: Inspection) -> str | None:
    samples = inspection.seen_stream.samples if inspection.seen_stream else ()
    # A message that several revisions can read, or none, is no evidence.
    evidence = [sample.revisions for sample in samples if len(sample.revisions) == 1][-_DECISIVE:]
    spoken = frozenset[str]().union(*evidence)
    if len(evidence) < _ENOUGH or len(spoken) != 1 or inspection.rules.revision in spoken:
        return None
    (revision,) = spoken
    return f"the newest events are of revision {revision}, but PROJECTOR_REVISION is {inspection.rules.revision}"


def _foreign_messages(inspection: Inspection) -> str | None:
    traffic = inspection.seen_stream.traffic if inspection.seen_stream else None
    if traffic is None:
        return None
    matching = sum(traffic.matching.values())
    if 2 * matching >= traffic.messages:
        return None
    share = (
        f"{matching} of the {traffic.messages} messages in the stream ({matching / traffic.messages:.1%}) "
        "match the daemon's filters"
    )
    if not traffic.foreign:
        return f"{share}; the others have too many subjects to list"
    named = [f"{messages} of {subjects}" for subjects, messages in traffic.foreign.items()]
    rest = sum(list(traffic.foreign.values())[_FOREIGN_NAMED:])
    return f"{share}; the others: {', '.join(named[:_FOREIGN_NAMED])}{f', {rest} of more subjects' if rest else ''}"


CONTENT_CHECKS: Sequence[Check[Inspection]] = (
    Check(
        "other-revision",
        "error",
        _other_revision,
        "set PROJECTOR_REVISION to the revision of the events; "
        "if messages were folded or parked before, then run `projector rebuild`",
    ),
    Check(
        "foreign-messages",
        "warning",
        _foreign_messages,
        "store the others in another stream: they use up the limits of this one, "
        "and servers before 2.10 deliver those with the prefix of endpoint events to the daemon",
    ),
)
