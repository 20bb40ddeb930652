"""Clients that speak HTTP/2 frame by frame, so that they can be bad ones."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES: Final = 16_384
WINDOW_BYTES: Final = 65_535
HEAD_BYTES: Final = 9
FINISH_SECONDS: Final = 60.0

Headers = Sequence[tuple[str, str]]


class Connection:
    """One connection, of which the test says each byte. An async context manager, which sends nothing by itself but
    answers to pings and settings, so that the server keeps it.

    Args:
        address: HOST:PORT.
        polite: take off what the server sends, and answer where HTTP/2 wants it. Else nothing is before `finish`.
        source: the address of this end; None: whichever the system takes.
    """

    def __init__(self, address: str, *, polite: bool = True, source: str | None = None) -> None:
        self._address = address
        self._source = None if source is None else (source, 0)
        self._polite = polite
        self._answering = False
        self._next_stream = 1
        self._reading: asyncio.Task[None] | None = None
        self.encoder = Encoder()
        self.ended: set[int] = set()  # streams that the server has ended
        self.closed = asyncio.Event()  # the connection, by the server: of use while something reads
        self.said = ""  # why, if the server said it
        self.heard = asyncio.Event()

    async def __aenter__(self) -> Self:
        host, port = self._address.rsplit(":", 1)
        self._reader, self._writer = await asyncio.open_connection(host, int(port), local_addr=self._source)
        if self._polite:
            self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        self._writer.transport.abort()

    def begin(self, settings: dict[int, int] | None = None) -> None:
        """Send the preface and the client's settings, after which the server's may be answered."""
        self.write(PREFACE, SettingsFrame(settings=settings or {}))
        self._answering = True

    def write(self, *parts: Frame | bytes) -> None:
        self._writer.write(b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts))

    async def send(self, *parts: Frame | bytes) -> bool:
        """The same, and wait until the system has taken it. Returns whether the connection still was."""
        try:
            self.write(*parts)
            await self._writer.drain()
        except OSError:
            return False
        return not self._writer.is_closing()

    async def finish(self) -> None:
        """Say that this is all, and wait until the server has read it, and ends the connection."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        self._answering = False
        with contextlib.suppress(OSError):  # it has ended it already
            self._writer.write_eof()
        async with asyncio.timeout(FINISH_SECONDS):
            await self.closed.wait()

    def stream(self) -> int:
        """The id of the next stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        return stream

    def headers(self, stream: int, method: str, *more: tuple[str, str], flags: Iterable[str] = ()) -> HeadersFrame:
        """How a call begins."""
        return HeadersFrame(stream, self.encoder.encode(request(method, *more)), flags=("END_HEADERS", *flags))

    def hear(self, frame: Frame) -> None:
        """A frame has come from the server."""
        match frame:
            case SettingsFrame() if "ACK" not in frame.flags and self._answering:
                self.write(SettingsFrame(flags=["ACK"]))
            case PingFrame() if "ACK" not in frame.flags and self._answering:
                self.write(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]))
            case RstStreamFrame():
                self.ended.add(frame.stream_id)
            case HeadersFrame() if "END_STREAM" in frame.flags:
                self.ended.add(frame.stream_id)
            case GoAwayFrame():
                self.said = frame.additional_data.decode(errors="replace")

    async def _read(self) -> None:
        try:
            while True:
                frame, length = Frame.parse_frame_header(memoryview(await self._reader.readexactly(HEAD_BYTES)))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                self.hear(frame)
                self.heard.set()
        except (asyncio.IncompleteReadError, OSError):
            self.closed.set()
            self.heard.set()


class StingyClient(Connection):
    """Takes off no answer, and leaves requests unfinished. Its calls have headers beside those that they need."""

    def __init__(self, address: str, *more: tuple[str, str]) -> None:
        super().__init__(address)
        self._more = more
        self._granted = WINDOW_BYTES  # by the server: of the connection,
        self._at_first = WINDOW_BYTES  # of each stream at first,
        self._added: dict[int, int] = {}  # and of those it added to

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.begin({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        return self

    async def call(self, method: str, request: bytes, *, withheld: int = 0, encoding: str = "") -> int:
        """Begin a call and send its request, but for some of its last bytes. Returns the stream.

        Args:
            encoding: how the request is compressed, if it is.
        """
        stream = self.stream()
        more = (("grpc-encoding", encoding),) if encoding else ()
        self.write(self.headers(stream, method, *self._more, *more))
        message = framed(request, compressed=bool(encoding))
        message = message[: len(message) - withheld]
        sent = 0
        while sent < len(message):
            room = min(FRAME_BYTES, self._granted, self._at_first + self._added.get(stream, 0) - sent)
            if room <= 0:
                self.heard.clear()
                await self.heard.wait()
                continue
            part = message[sent : sent + room]
            self.write(DataFrame(stream, part))
            sent += len(part)
            self._granted -= len(part)
        if not withheld:
            self.write(DataFrame(stream, flags=["END_STREAM"]))
        await self.send()
        return stream

    def hear(self, frame: Frame) -> None:
        super().hear(frame)
        match frame:
            case SettingsFrame():
                self._at_first = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._at_first)
            case WindowUpdateFrame() if frame.stream_id:
                self._added[frame.stream_id] = self._added.get(frame.stream_id, 0) + frame.window_increment
            case WindowUpdateFrame():
                self._granted += frame.window_increment


def request(method: str, *more: tuple[str, str]) -> Headers:
    """The headers of a call."""
    return (
        (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"),
        ("te", "trailers"), ("content-type", "application/grpc"), *more,
    )  # fmt: skip


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """A message, as gRPC has it in the data of a stream."""
    return bytes((compressed,)) + len(message).to_bytes(4) + message
