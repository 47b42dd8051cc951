"""The types of the fixtures that every directory has."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

Wire: TypeAlias = tuple[str, bytes]
"""Subject and payload of a message."""

Rows: TypeAlias = list[tuple[Any, ...]]


class Event(Protocol):
    """Builds the message of an event; fields missing in `record` take valid defaults."""

    def __call__(self, event_type: str, endpoint_id: str = "", *, originator: str = "kpc", **record: Any) -> Wire: ...


class Publish(Protocol):
    """Publishes messages in order, and returns the position of the last one when all are stored."""

    async def __call__(self, *messages: Wire, headers: dict[str, str] | None = None) -> int: ...


class Query(Protocol):
    """Runs one SQL statement on a connection of its own."""

    async def __call__(self, url: str, sql: str, *arguments: Any) -> Rows: ...


class Eventually(Protocol):
    """Returns once a condition holds; fails after `patience_s`."""

    async def __call__(self, condition: Callable[[], Awaitable[object]], *, patience_s: float = ...) -> None: ...
