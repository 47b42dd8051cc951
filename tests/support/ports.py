"""Ports for servers that must know each other's ports before they start."""

import socket
from contextlib import suppress
from random import SystemRandom

_BELOW_EPHEMERAL = range(20_000, 32_000)
"""The kernel gives none of these to a connection or to a server that takes any port."""


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback interface."""
    ports: list[int] = []
    while len(ports) < count:
        port = SystemRandom().choice(_BELOW_EPHEMERAL)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports
