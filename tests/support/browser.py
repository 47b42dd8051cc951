"""A real browser that looks at a daemon's pages."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.support.monitored import watched
from tests.support.patience import PATIENCE_S
from tests.support.scene import Scene

Look: TypeAlias = Callable[..., Awaitable[Page]]
"""Starts a daemon with some settings, and opens one of its pages, whose clock the test may move."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXECUTABLE = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_browser = pytest.mark.skipif(
    EXECUTABLE is None, reason=f"NO BROWSER: the page was not tested; install one of {', '.join(BROWSERS)}"
)
POLL_MS = 5_000

_QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# The page gives up an answer after a few seconds, and shows that until its next poll.
_PATIENT = f"AbortSignal.timeout = AbortSignal.timeout.bind(AbortSignal, {1000 * PATIENCE_S})"
# The browser itself reports a server that is gone, and every answer of the API that is an error.
_BY_THE_BROWSER = ("ERR_CONNECTION_REFUSED", "status of 400", "status of 404", "status of 503")


@asynccontextmanager
async def browsing(scene: Scene) -> AsyncIterator[Look]:
    """Open a browser; fail the test at its end if a page complained or made requests elsewhere."""
    complaints: list[str] = []
    async with AsyncExitStack() as daemons, async_playwright() as playwright:
        expect.set_options(timeout=1000 * PATIENCE_S)
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=_QUIET)

        async def look(path: str = "/", *, moves_clock: bool = True, **settings: Any) -> Page:
            url = (await daemons.enter_async_context(watched(scene, **settings))).url
            page = await browser.new_page()
            page.set_default_timeout(1000 * PATIENCE_S)
            await page.add_init_script(_PATIENT)
            page.on("console", lambda message: complaints.append(f"console: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
            page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
            page.on("request", lambda request: complaints.extend(_elsewhere(request.url, url)))
            if moves_clock:
                await page.clock.install()
            await page.goto(url + path)
            return page

        yield look
        await browser.close()
    assert [one for one in complaints if not any(expected in one for expected in _BY_THE_BROWSER)] == []


def _elsewhere(requested: str, origin: str) -> Iterator[str]:
    if not requested.startswith((f"{origin}/", "data:")):
        yield f"request: {requested}"


async def shows(page: Page, word: str) -> None:
    """Let the page ask again until its verdict is this one."""
    async with asyncio.timeout(PATIENCE_S):
        while await page.inner_text("#word") != word:
            await page.clock.fast_forward(POLL_MS)
