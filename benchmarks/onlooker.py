"""A client that queries a daemon as a scraper and a few open pages would."""

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_EVERY_S = 5.0
_TIMEOUT_S = 1.0
_PATHS = ("/metrics", "/status", "/history", "/readyz")


@contextmanager
def onlooker() -> Iterator[str]:
    """Yield the address for a daemon to serve, and query everything there every 5 s for the length of a block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        http = f"127.0.0.1:{free.getsockname()[1]}"
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(_EVERY_S):
            for path in _PATHS:
                # It does not answer yet or any longer, or reports too large a lag.
                with suppress(OSError), urllib.request.urlopen(f"http://{http}{path}", timeout=_TIMEOUT_S) as answer:
                    answer.read()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield http
    finally:
        ended.set()
        asking.join()
