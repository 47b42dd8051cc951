from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from projector.domain.application import Application
from projector.domain.checkpoint import Anchor, Checkpoint, Rules
from projector.domain.configuration import Configuration
from projector.domain.connectivity import Connectivity
from projector.domain.endpoint import FACETS, Endpoint
from projector.domain.messages import DeadLetter, Message
from projector.domain.metadata import Key, Metadata
from projector.domain.stamps import Register, Stamp
from projector.errors import CheckpointMovedError, DatabaseUnavailableError
from projector.storage.columns import FACET_COLUMNS
from projector.storage.store import Store

EVERY_FACET = (1 << len(FACETS)) - 1

Query = Callable[..., Awaitable[list[tuple[Any, ...]]]]
Transaction = Callable[[], AbstractAsyncContextManager[Any]]
Folded = Callable[..., Awaitable[dict[str, Endpoint]]]

every_set_of_facets = pytest.mark.parametrize("facets", range(EVERY_FACET + 1), ids="{:04b}".format)


def stamp(position: int, replica: str | None = "kpc-0") -> Stamp:
    return Stamp(position, 1_700_000_000_000 + position, "kpc", replica)


def states(first: int) -> tuple[Any, ...]:
    """One state of each facet, with every register set, by events from a position on."""
    return (
        Connectivity(stamp(first), stamp(first + 1, None)),
        Application(Register('kettle "V1" \\ ☕', stamp(first)), Register(None, stamp(first + 1)), stamp(first + 2)),
        Metadata(
            {
                "site": Key(present=True, value=None, stamp=stamp(first)),
                "ключ\t": Key(present=True, value={"nested": [1, 2.5, "x", None, True]}, stamp=stamp(first + 1)),
                "gone": Key(present=False, value=None, stamp=stamp(first + 2, None)),
            },
            stamp(first + 2),
        ),
        Configuration(Register(f"c{first}", stamp(first)), Register("c0", stamp(first + 1))),
    )


def endpoint(facets: int, first: int) -> Endpoint:
    """An endpoint whose facets of a set were changed by events from a position on."""
    changed = Endpoint.unseen()
    for index, state in enumerate(states(first)):
        if facets >> index & 1:
            changed.states[index] = state
    changed.changed = facets
    changed.last_event_seq, changed.last_event_at = first + 2, 1_700_000_000_002 + first
    return changed


@pytest.fixture
async def open_store(database_url: str) -> AsyncIterator[Callable[[], Awaitable[Store]]]:
    opened = []

    async def open_store() -> Store:
        store = Store(database_url)
        opened.append(store)
        await store.open()
        return store

    yield open_store
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: Callable[[], Awaitable[Store]]) -> Store:
    return await open_store()


@pytest.fixture
def save(store: Store) -> Callable[[Mapping[str, Endpoint]], Awaitable[None]]:
    async def save(endpoints: Mapping[str, Endpoint]) -> None:
        async with store.transaction() as work:
            await work.save(endpoints)

    return save


@pytest.fixture
def load(store: Store) -> Callable[..., Awaitable[Any]]:
    async def load(*endpoint_ids: str, facets: int = EVERY_FACET) -> dict[str, Endpoint]:
        async with store.transaction() as work:
            return await work.load(dict.fromkeys(endpoint_ids, facets))

    return load
