"""How requests come: each is read when there is room for it, and waited for no longer than a client may take."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message

from comity_server.access.bounds import Payer
from comity_server.access.caller import Caller
from comity_server.access.gate import ANYBODY
from comity_server.errors import InvalidRequest, RequestTimeout, Violation
from comity_server.services.admission import Admission, Place
from comity_server.services.call import Context
from comity_server.services.shape import Shape
from comity_server.telemetry.trail import Trail

REQUEST_SECONDS: Final = 60.0  # how long a request may take to come
ANYBODY_SECONDS: Final = 5.0  # one of what needs no identity, whose requests are small
STREAM_REQUEST_BYTES: Final = 64 * 1024


class Requests:
    """The requests of one stream, as they come: an iterator of small ones, which `admitted` is for large ones."""

    def __init__(
        self,
        admission: Admission,
        context: Context,
        caller: Caller,
        payer: Payer,
        trail: Trail,
        parse: Callable[[bytes], Message],
        shape: Shape,
    ) -> None:
        self._admission = admission
        self._context = context
        self._caller = caller
        self._payer = payer
        self._trail = trail
        self._parse = parse
        self._shape = shape

    async def __aiter__(self) -> AsyncGenerator[Message]:
        with contextlib.suppress(EOFError):
            while True:
                yield self._parse(
                    await receive_small(self._admission, self._context, self._caller, self._payer, self._trail)
                )

    async def admitted(self, *, soon: bool) -> tuple[Any, Place, int]:
        """Read a request of any size, what it takes up of the connection's room until its place is left, and its size.

        What is on its way takes up nothing, since the next request of a stream may be long in coming: longer than
        REQUEST_SECONDS unless it has to come `soon`. Raises EOFError if there is none, RequestTimeout, Unauthenticated,
        InvalidRequest if it has too much inside.
        """
        data = await receive(self._context, self._trail, self._caller, soon=soon)
        place = await self._admission.enter(self._context.peer(), self._payer, patient=True)
        try:
            place.resize(len(data) + self._shape.check(data))
            request = self._parse(data)
        except (DecodeError, InvalidRequest):
            place.leave()
            raise
        self._trail.asks(request)
        return request, place, len(data)


async def receive_small(admission: Admission, context: Context, caller: Caller, payer: Payer, trail: Trail) -> bytes:
    """Read a request of a stream. It lasts as long as the stream, so it must not be large. Raises EOFError,
    Unauthenticated."""
    place = await admission.enter(context.peer(), payer)
    try:
        data = await receive(context, trail, caller)
    finally:
        place.leave()
    if len(data) > STREAM_REQUEST_BYTES:
        raise InvalidRequest(Violation("request", f"must not be larger than {STREAM_REQUEST_BYTES} bytes"))
    return data


async def receive(context: Context, trail: Trail, caller: Caller, *, soon: bool = True) -> bytes:
    """Read a request. Raises EOFError if there is none, RequestTimeout if it has to come soon and does not, and
    Unauthenticated if by the time that it comes the caller's identity does not hold any more."""
    seconds = (ANYBODY_SECONDS if caller is ANYBODY else REQUEST_SECONDS) if soon else None
    try:
        async with asyncio.timeout(seconds):
            data: Any = await context.read()
    except TimeoutError:
        if seconds is None:
            raise
        raise RequestTimeout(seconds) from None
    if data is grpc.aio.EOF:
        raise EOFError
    caller.check()  # who was let in by the headers, and that may be long ago
    trail.took(len(data))
    return bytes(data)
