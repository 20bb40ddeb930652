"""A connection between client and server that a test can cut, stall, or make lose the server's answers."""

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards a free port of the loopback to a server. An async context manager."""

    address: str

    def __init__(self, target: str) -> None:
        self._host, port = target.rsplit(":", 1)
        self._port = int(port)
        self._connections: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()
        self._answers.set()
        self._lost = asyncio.Event()
        self._refusing = False
        self._until_cut: int | None = None  # how many bytes of answers
        self.connections = 0  # that were ever made
        self.delay = 0.0  # seconds, of each answer

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    async def cut(self) -> None:
        """Break every connection that there is."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def cut_after(self, size: int) -> None:
        """Break, once, the connection over which the server's answers come to so many bytes from now on."""
        self._until_cut = size

    def refuse(self, refusing: bool = True) -> None:
        """Break each new connection at once."""
        self._refusing = refusing

    def stall(self) -> None:
        """Hold back everything that the server sends."""
        self._lost.clear()
        self._answers.clear()

    def resume(self) -> None:
        """Let it through again."""
        self._answers.set()

    async def held_back(self) -> None:
        """Wait until the server has sent something since the stall."""
        await self._lost.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.connections += 1
        try:
            if not self._refusing:
                await self._forward(reader, writer)
        except (asyncio.CancelledError, OSError):  # cut, or ended by one side
            writer.transport.abort()
        finally:
            writer.close()
            self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(self._host, self._port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, requests))
                tasks.create_task(self._copy_answers(answers, writer))
        except* OSError:
            writer.transport.abort()
        finally:
            requests.transport.abort()

    async def _copy_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self._answers.is_set():
                self._lost.set()
            await self._answers.wait()
            if self._until_cut is not None:
                self._until_cut -= len(data)
                if self._until_cut <= 0:
                    self._until_cut = None
                    raise ConnectionResetError
            await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError
