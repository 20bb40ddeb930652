"""A client that speaks just enough HTTP/2 to be a bad one: it takes off no answer, and leaves requests unfinished.

It does answer pings and settings, so that the server keeps its connection.
"""

import asyncio
import contextlib
from enum import IntEnum
from types import TracebackType
from typing import Self

ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
FRAME_BYTES = 16_384
WINDOW_BYTES = 65_535


class Frame(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    WINDOW_UPDATE = 8


class StingyClient:
    """One connection, whose calls have headers beside those that they need. An async context manager."""

    def __init__(self, address: str, *headers: tuple[str, str]) -> None:
        self._address = address
        self._headers = headers
        self._next_stream = 1
        self._granted = (
            WINDOW_BYTES  # by the server: of the connection, of each stream at first, and of those it added to
        )
        self._at_first = WINDOW_BYTES
        self._added: dict[int, int] = {}
        self._heard = asyncio.Event()
        self.ended: set[int] = set()  # streams that the server has ended

    async def __aenter__(self) -> Self:
        host, port = self._address.rsplit(":", 1)
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        no_window = INITIAL_WINDOW_SIZE.to_bytes(2) + bytes(4)
        self._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(Frame.SETTINGS, 0, 0, no_window))
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._reading

    async def call(self, method: str, request: bytes, *, withheld: int = 0) -> int:
        """Begin a call and send its request, but for some of its last bytes. Returns the stream."""
        stream = self._next_stream
        self._next_stream += 2
        headers = (
            (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"),
            ("te", "trailers"), ("content-type", "application/grpc"), *self._headers,
        )  # fmt: skip
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)
        self._writer.write(_frame(Frame.HEADERS, END_HEADERS, stream, block))
        message = b"\0" + len(request).to_bytes(4) + request
        message = message[: len(message) - withheld]
        sent = 0
        while sent < len(message):
            room = min(FRAME_BYTES, self._granted, self._at_first + self._added.get(stream, 0) - sent)
            if room <= 0:
                self._heard.clear()
                await self._heard.wait()
                continue
            part = message[sent : sent + room]
            self._writer.write(_frame(Frame.DATA, 0, stream, part))
            sent += len(part)
            self._granted -= len(part)
        if not withheld:
            self._writer.write(_frame(Frame.DATA, END_STREAM, stream, b""))
        await self._writer.drain()
        return stream

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await self._reader.readexactly(9)
                data = await self._reader.readexactly(int.from_bytes(head[:3]))
                self._receive(head[3], head[4], int.from_bytes(head[5:]), data)

    def _receive(self, kind: int, flags: int, stream: int, data: bytes) -> None:
        match kind:
            case Frame.SETTINGS if not flags & ACK:
                for at in range(0, len(data), 6):
                    if int.from_bytes(data[at : at + 2]) == INITIAL_WINDOW_SIZE:
                        self._at_first = int.from_bytes(data[at + 2 : at + 6])
                self._writer.write(_frame(Frame.SETTINGS, ACK, 0, b""))
            case Frame.PING if not flags & ACK:
                self._writer.write(_frame(Frame.PING, ACK, 0, data))
            case Frame.WINDOW_UPDATE if stream:
                self._added[stream] = self._added.get(stream, 0) + int.from_bytes(data)
            case Frame.WINDOW_UPDATE:
                self._granted += int.from_bytes(data)
            case Frame.RST_STREAM:
                self.ended.add(stream)
            case Frame.HEADERS if flags & END_STREAM:
                self.ended.add(stream)
        self._heard.set()


def _frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    return len(data).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + data


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()
