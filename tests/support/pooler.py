"""A pooler in transaction mode: it sends each transaction of a connection to another server process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_SOCKET = ".s.PGSQL.5432"
_READY, _IDLE = b"Z", b"I"


@asynccontextmanager
async def pooled(url: str, folder: Path) -> AsyncIterator[str]:
    """Run a pooler in front of a server; yields the URL for clients."""
    server_folder = parse_qs(urlsplit(url).query)["host"][0]
    clients: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        clients.add(task)
        try:
            with suppress(OSError, EOFError):
                await _serve((reader, writer), Path(server_folder) / _SOCKET)
        finally:
            clients.discard(task)
            writer.transport.abort()

    async with await asyncio.start_unix_server(accept, folder / _SOCKET):
        yield url.replace(urlsplit(url).query, f"host={folder}")
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def _serve(client: Streams, server: Path) -> None:
    size = await client[0].readexactly(4)
    startup = size + await client[0].readexactly(int.from_bytes(size) - 4)
    backends = [await _connect(server, startup) for _ in range(2)]
    turn = 0

    async def to_server() -> None:
        while True:
            frame = await _frame(client[0])
            backends[turn][0][1].write(frame)

    client[1].write(backends[0][1])
    forwarding = asyncio.create_task(to_server())
    try:
        while True:
            answer = await _frame(backends[turn][0][0])
            if answer[:1] == _READY and answer[5:] == _IDLE:
                turn = 1 - turn
            client[1].write(answer)
    finally:
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)
        for (_, writer), _ in backends:
            writer.transport.abort()


async def _connect(server: Path, startup: bytes) -> tuple[Streams, bytes]:
    """Open a connection to the server; return it, and the server's messages until it was ready."""
    reader, writer = await asyncio.open_unix_connection(server)
    writer.write(startup)
    said = b""
    while True:
        frame = await _frame(reader)
        said += frame
        if frame[:1] == _READY:
            return (reader, writer), said


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
