"""Subjects of endpoint events: `kaa.v1.events.{originator}.endpoint.{group}.{type}` (9/ENDPOINT_EVENTS)."""

from collections.abc import Iterable
from typing import NamedTuple

SEVERAL_FILTERS_SINCE = (2, 10)
"""The first version of the NATS server whose consumers have several filters."""

_PREFIX = ("kaa", "v1", "events")
_ORIGINATOR = 3
_ENDPOINT = 4


class EventSubject(NamedTuple):
    """What a subject says."""

    originator: str
    """Name of the originating service instance."""
    type: str
    """What follows `endpoint.`: `{group}.{type}`, for an event of the protocol."""

    @property
    def group(self) -> str:
        """The group that the type is in."""
        return self.type.partition(".")[0]


def parse(subject: str) -> EventSubject | None:
    """Take a subject apart, or return None where it is not one of endpoint events.

    Any number of tokens may follow `endpoint.`, since what is not exactly a group and a type
    is a type that nobody knows yet.
    """
    tokens = subject.split(".")
    if tuple(tokens[:_ORIGINATOR]) != _PREFIX or tokens[_ENDPOINT : _ENDPOINT + 1] != ["endpoint"]:
        return None
    return EventSubject(tokens[_ORIGINATOR], ".".join(tokens[_ENDPOINT + 1 :]))


def build(originator: str, event_type: str) -> str:
    """Return the subject of an event."""
    return f"kaa.v1.events.{originator}.endpoint.{event_type}"


def filters(
    originators: Iterable[str] = (),
    groups: Iterable[str] = (),
    *,
    server_version: tuple[int, ...] = SEVERAL_FILTERS_SINCE,
) -> tuple[str, ...]:
    """Return the subject filters of a consumer that select the events of these originators and groups, sorted.

    No originator means all of them, and no group all of them.
    The daemon names the groups of its revision (`Revision.groups`): other protocols of the platform share the prefix,
    send a hundred times as many messages, and must not be delivered.

    A server that knows one filter only gets one for all groups; decoding passes over what is of none of ours.
    Several originators are several filters there too, which such a server refuses.
    """
    tails = sorted({f"{group}.>" for group in groups}) if server_version >= SEVERAL_FILTERS_SINCE else []
    return tuple(build(originator, tail) for originator in sorted(set(originators)) or ["*"] for tail in tails or [">"])
