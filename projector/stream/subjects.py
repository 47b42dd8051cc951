"""Subjects of endpoint events: `kaa.v1.events.{originator}.endpoint.{group}.{type}` (9/ENDPOINT_EVENTS)."""

from collections.abc import Iterable
from typing import NamedTuple

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


def filters(originators: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the subject filters that select the events of these originators, or of all if none is named."""
    return tuple(build(originator, ">") for originator in sorted(set(originators))) or (build("*", ">"),)
