"""Protocol revisions: the name of each event type on the wire, and its meaning.

The revision is a setting and never guessed,
since a payload of one often decodes by accident with the schema of another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from projector.domain.events import Event
from projector.domain.stamps import Stamp

Record: TypeAlias = dict[str, Any]
Translate: TypeAlias = Callable[[Record, Stamp], Sequence[Event]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """One event type of a revision."""

    schema: str
    """Name of its file in `schemas/<revision>/`, without the extension."""
    translate: Translate
    """Translates a wire record and its stamp into domain events; raises PoisonError."""
    kinds: tuple[type[Any], ...]
    """Types of the domain events that it may be translated into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One revision of 9/ENDPOINT_EVENTS."""

    name: str
    event_types: Mapping[str, EventType]
    """By `{group}.{type}` of the subject."""

    @property
    def groups(self) -> frozenset[str]:
        """The groups of these types, which are the only ones to subscribe to."""
        return frozenset(event_type.partition(".")[0] for event_type in self.event_types)

    @property
    def names(self) -> Mapping[type[Any], str]:
        """The `{group}.{type}` of each type of domain event."""
        return {kind: name for name, event_type in self.event_types.items() for kind in event_type.kinds}
