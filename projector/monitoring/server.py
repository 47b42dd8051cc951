"""The HTTP server of the daemon. It is read-only."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from aiohttp import web

from projector.app.notifications import Listening, Notification, NotListening
from projector.monitoring import page
from projector.monitoring.answers import Answers, to_json
from projector.monitoring.api import Api

BIND_AGAIN_S = 5.0
_SHUTDOWN_S = 1.0
_LONGEST_LINE = 16_384
"""In bytes: the longest endpoint id, percent-encoded, and some more."""
_PORT = re.compile(r":\d*$")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int
    """0 picks a free port."""

    def __str__(self) -> str:
        """Return the URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return self.host == "localhost" or (_is_ip_address(self.host) and ip_address(self.host).is_loopback)


class Server:
    """Serves the page, answers and metrics, read-only."""

    def __init__(self, answers: Answers, api: Api, scrape: Callable[[str], tuple[bytes, str]]) -> None:
        """Take what to serve; `scrape` returns the metrics and their content type for an `Accept` header."""
        self._answers = answers
        self._api = api
        self._scrape = scrape
        self._files = page.load()

    async def serve(self, address: Address, notify: Callable[[Notification], None]) -> None:
        """Listen until cancelled; while the port is taken, report it once and retry."""
        runner = web.AppRunner(
            self._app(address),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_SHUTDOWN_S,
            max_line_size=_LONGEST_LINE,
        )
        await runner.setup()
        try:
            await _bind(runner, address, notify)
            notify(Listening(url=str(Address(*runner.addresses[0][:2]))))
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
            self._api.close()

    def _app(self, address: Address) -> web.Application:
        app = web.Application(middlewares=[_refuse_foreign_names] if address.is_loopback else [])
        app.on_response_prepare.append(_add_headers)
        app.add_routes(
            [
                web.get("/", self._get_page),
                web.get("/endpoints/{id:[^/]+}", self._get_endpoint_page),
                web.get("/browser/{name}", self._get_file),
                web.get("/healthz", self._get_healthy),
                web.get("/readyz", self._get_ready),
                web.get("/status", self._get_status),
                web.get("/history", self._get_history),
                web.get("/metrics", self._get_metrics),
                *self._api.routes(),
            ]
        )
        return app

    async def _get_page(self, _: web.Request) -> web.Response:
        return self._file("overview.html")

    async def _get_endpoint_page(self, _: web.Request) -> web.Response:
        return self._file("endpoint.html")

    async def _get_file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._files:
            raise web.HTTPNotFound
        return self._file(name)

    def _file(self, name: str) -> web.Response:
        text, content_type = self._files[name]
        return web.Response(text=text, content_type=content_type, headers={"Content-Security-Policy": page.POLICY})

    async def _get_healthy(self, _: web.Request) -> web.Response:
        return _verdict(*self._answers.healthy())

    async def _get_ready(self, _: web.Request) -> web.Response:
        return _verdict(*self._answers.ready())

    async def _get_status(self, _: web.Request) -> web.Response:
        return web.json_response(self._answers.status(), dumps=to_json)

    async def _get_history(self, _: web.Request) -> web.Response:
        return web.json_response(self._answers.history(), dumps=to_json)

    async def _get_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._scrape(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


async def _bind(runner: web.AppRunner, address: Address, notify: Callable[[Notification], None]) -> None:
    reported = False
    while True:
        site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            await site.stop()
            if not reported:
                notify(NotListening(reason=f"{address}: {error.strerror or error}"))
                reported = True
            await asyncio.sleep(BIND_AGAIN_S)
        else:
            return


@web.middleware
async def _refuse_foreign_names(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse requests whose Host is neither an IP address nor localhost.

    This prevents DNS rebinding: a foreign page in a browser on this machine can point its own name at 127.0.0.1.
    Only a loopback address is protected, since other machines may reach this one by any name.
    """
    name = _PORT.sub("", request.host).strip("[]")
    if name != "localhost" and not _is_ip_address(name):
        raise web.HTTPMisdirectedRequest(text="use 127.0.0.1 or localhost as the host\n")
    return await handler(request)


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _verdict(yes: bool, answer: dict[str, Any]) -> web.Response:
    return web.json_response(answer, status=200 if yes else 503, dumps=to_json)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
