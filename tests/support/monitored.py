"""A daemon with its monitor, and the monitor's answers over HTTP."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.support.patience import PATIENCE_S
from tests.support.scene import Daemon, Scene


class Answer(NamedTuple):
    code: int
    headers: Any
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def fetch(url: str, method: str = "GET", **headers: str) -> Answer:
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - the test's own server
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310 - as above
            return Answer(response.status, response.headers, response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read().decode())


class Watched:
    """A daemon in the test's own process, and the server that its monitor runs in a thread."""

    def __init__(self, daemon: Daemon, url: str) -> None:
        self.daemon = daemon
        self.url = url

    async def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return await asyncio.to_thread(fetch, self.url + path, method, **headers)

    async def status(self) -> Any:
        return (await self.get("/status")).json

    async def says(self, path: str, condition: Callable[[Answer], object]) -> Answer:
        """Return the first answer for which a condition holds."""
        return await asyncio.to_thread(self.says_soon, path, condition)

    def says_soon(self, path: str, condition: Callable[[Answer], object]) -> Answer:
        """Do the same, and let the loop wait as well."""
        deadline = time.monotonic() + PATIENCE_S
        answer = fetch(self.url + path)
        while not condition(answer):
            assert time.monotonic() < deadline, answer
            time.sleep(0.02)
            answer = fetch(self.url + path)
        return answer


@asynccontextmanager
async def watched(scene: Scene, *, port: int = 0, **settings: Any) -> AsyncIterator[Watched]:
    """Start a daemon that serves HTTP."""
    daemon = scene.follow(http=f"127.0.0.1:{port}", **settings)
    try:
        await daemon.hears("listening")
        yield Watched(daemon, daemon.recorder.url)
    finally:
        await daemon.abandon()


def in_a_thread(work: Callable[[], Any]) -> Any:
    """Run a function in another thread, and block the loop until it returns."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(PATIENCE_S)
