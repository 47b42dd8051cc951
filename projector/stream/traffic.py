"""Counts the messages in a stream that match the daemon's filters, and the foreign ones, by subject."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from projector.domain.broker_info import Traffic
from projector.stream import subjects

Count: TypeAlias = Callable[[str], Awaitable[Mapping[str, int]]]
"""Returns the number of messages of each subject that a filter selects."""

_SUBJECTS_LISTED = 10_000
"""The most subjects that are listed to find foreign ones: a stream can have one subject per device."""
_TOKENS_NAMED = 3


async def count_traffic(
    count: Count, state: Mapping[str, Any], originators: Sequence[str], groups: Iterable[str]
) -> Traffic:
    """Return how many messages match; `state` is that of the stream's STREAM.INFO."""
    by_originator: dict[str, Mapping[str, int]] = {}
    for originator in originators or ("*",):
        counted: Counter[str] = Counter()
        for subject_filter in subjects.filters((originator,), groups):
            counted.update(await count(subject_filter))
        by_originator[originator] = counted
    matching = {subject for counted in by_originator.values() for subject in counted}
    foreign: Counter[str] = Counter()
    if len(matching) < state.get("num_subjects", 0) <= _SUBJECTS_LISTED:
        for subject, messages in (await count(">")).items():
            if subject not in matching:
                foreign[_named(subject, originators)] += messages
    return Traffic(
        messages=state["messages"],
        matching={originator: sum(counted.values()) for originator, counted in by_originator.items()},
        foreign=dict(foreign.most_common()),
    )


def _named(subject: str, originators: Sequence[str]) -> str:
    """Return a filter that groups a foreign subject with similar ones."""
    event = subjects.parse(subject)
    if event is None:
        tokens = subject.split(".")
        return subject if len(tokens) <= _TOKENS_NAMED else ".".join([*tokens[:_TOKENS_NAMED], ">"])
    if originators and event.originator not in originators:
        return subjects.build(event.originator, ">")
    return subjects.build("*", f"{event.group}.>")
