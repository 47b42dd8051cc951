"""Three NATS servers on loopback that hold one stream together."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import nats
import nats.errors
import nats.js.errors

from tests.support import servers
from tests.support.ports import free_ports

SIZE = 3

_QUORUM_S = 60.0
_POLL_S = 0.1


class NatsCluster:
    """A cluster in which a stream can have a replica on each server; it is used as a single server is."""

    def __init__(self, folder: Path) -> None:
        """Lay out the servers; none is started yet."""
        ports = free_ports(SIZE)
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
        self.servers = {
            f"n{number}": servers.nats_in(
                folder / f"n{number}",
                config=f"server_name: n{number}\ncluster: {{name: c, listen: '127.0.0.1:{port}', routes: [{routes}]}}",
            )
            for number, port in enumerate(ports, 1)
        }

    @property
    def url(self) -> str:
        """All servers, separated by commas."""
        return ",".join(server.url for server in self.servers.values())

    def start(self) -> None:
        """Return when the servers have found one another.

        Raises:
            FatalError: one did not start.
            TimeoutError: they have not.
        """
        try:
            for server in self.servers.values():
                server.start()
            asyncio.run(self._await_quorum())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Let all of them shut down."""
        for server in self.servers.values():
            server.stop()

    def kill(self) -> None:
        """End all of them as a power cut would."""
        for server in self.servers.values():
            server.kill()

    async def _await_quorum(self) -> None:
        deadline = time.monotonic() + _QUORUM_S
        async with await nats.connect(self.url.split(",")) as client:
            jetstream = client.jetstream()
            while time.monotonic() < deadline:
                with suppress(nats.errors.Error, nats.js.errors.Error):
                    await jetstream.add_stream(name="probe", subjects=["probe"], num_replicas=SIZE)
                    await jetstream.delete_stream("probe")
                    return
                await asyncio.sleep(_POLL_S)
        raise TimeoutError(f"the servers of the cluster have not found one another in {_QUORUM_S:.0f} s")
