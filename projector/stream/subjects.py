"""Subjects of endpoint events: `kaa.v1.events.{originator}.endpoint.{group}.{type}` (9/ENDPOINT_EVENTS)."""

from collections.abc import Iterable
from typing import NamedTuple

SEVERAL_FILTERS_SINCE = (2, 10)
"""The first version of the NATS server whose consumers support several filters."""

_PREFIX = ("kaa", "v1", "events")
_ORIGINATOR = 3
_ENDPOINT = 4


class EventSubject(NamedTuple):
    """The parts of a subject."""

    originator: str
    """Name of the originating service instance."""
    type: str
    """What follows `endpoint.`: `{group}.{type}`, for an event of the protocol."""

    @property
    def group(self) -> str:
        """The group of the event type."""
        return self.type.partition(".")[0]


def parse(subject: str) -> EventSubject | None:
    """Parse a subject; return None if it is not a subject of endpoint events.

    Any number of tokens may follow `endpoint.`: anything but a group and a type is an unknown event type.
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

    A server that supports one filter only gets one for all groups, and decoding ignores the other groups.
    Several originators take several filters, which such a server refuses.
    """
    tails = sorted({f"{group}.>" for group in groups}) if server_version >= SEVERAL_FILTERS_SINCE else []
    return tuple(build(originator, tail) for originator in sorted(set(originators)) or ["*"] for tail in tails or [">"])
