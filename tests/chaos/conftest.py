"""The servers of all chaos in a module."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.chaos.world import World


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world
