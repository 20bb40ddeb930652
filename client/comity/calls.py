"""Unary calls with a deadline and retries. The one place where they meet gRPC."""

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar

import grpc

from . import errors, tracing
from .arguments import shown
from .channel import Channels
from .leases.keeper import Keepers
from .retry import MAX_WRITE_SECONDS, REFUSED, Retry
from .status import is_transient
from .stubs import Metadata, Method
from .tasks import is_task_cancelled
from .turns import Turns

__all__ = ["Calls", "TraceParent", "check_timeout", "traced"]

Request = TypeVar("Request")
Response = TypeVar("Response")

# Of the W3C: version, trace, parent, flags; neither the version ff, nor a trace or a parent of zeros.
TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


TraceParent = Callable[[], str | None]


def check_timeout(timeout: float) -> float:
    """The timeout in seconds. Raises TypeError for what is no number, ValueError unless it is above 0 and finite."""
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds above 0, not {type(timeout).__name__}")
    if not 0 < timeout < float("inf"):
        raise ValueError(f"a timeout is a number of seconds above 0, not {shown(timeout)}")
    return timeout


class Calls:
    """Makes calls on the channels of a client. `trace_parent` is asked at each write, before OpenTelemetry is."""

    def __init__(self, channels: Channels, trace_parent: TraceParent | None = None) -> None:
        self.channels = channels
        self.keepers = Keepers(channels)
        self.turns = Turns()
        self._trace_parent = trace_parent

    async def close(self) -> None:
        """Close what there is of the running event loop, and make no more."""
        await self.keepers.close()
        await self.channels.close()

    async def read(self, method: Method[Request, Response], request: Request, timeout: float) -> Response:
        """Call, and again while the server cannot be reached, for `timeout` seconds in all."""
        return await self._retried(method, request, timeout)

    async def write(self, method: Method[Request, Response], request: Request, timeout: float) -> Response:
        """The same, of a request that has a request id: the server applies it once, however often it is sent."""
        return await self._retried(method, request, min(timeout, MAX_WRITE_SECONDS), traced(self.trace_parent()))

    async def once(self, method: Method[Request, Response], request: Request, timeout: float) -> Response:
        """Find a server that answers, and call it, and again only where nothing was done: for what must not be done
        twice and has no request id."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        retry = Retry(deadline)
        while True:
            await self._retried(lambda to: to.health, b"", retry.remaining(clock()))  # whatever it says, it is there
            try:
                return await self.attempt(method, request, retry.remaining(clock()))
            except (errors.RateLimited, errors.Unavailable) as error:
                if isinstance(error, errors.Unavailable) and error.reason not in REFUSED:
                    raise
                await asyncio.sleep(retry.delay(error, clock()))

    async def attempt(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout: float,
        *,
        metadata: Metadata | None = None,
    ) -> Response:
        """Call once, and once more with a new token if the server has refused an old one. A server that cannot be
        reached is an error at once."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        connection = self.channels.connection()
        renewed = False
        while True:
            try:
                calling = method(connection)(request, timeout=max(0.0, deadline - clock()), metadata=metadata)
                token = connection.token
                return await calling
            except grpc.aio.AioRpcError as failure:
                error = connection.peer.error(failure)
                if isinstance(error, errors.Unauthenticated) and not renewed and connection.has_new_token(token):
                    renewed = True
                    continue
                if is_transient(error) or isinstance(error, errors.DeadlineExceeded):
                    self.channels.failed(connection)
                raise error from failure
            except asyncio.CancelledError:
                if not is_task_cancelled():
                    self.channels.check_open()
                raise

    async def _retried(
        self, method: Method[Request, Response], request: Request, timeout: float, metadata: Metadata | None = None
    ) -> Response:
        clock = asyncio.get_running_loop().time
        retry = Retry(clock() + timeout)
        while True:
            try:
                return await self.attempt(method, request, retry.remaining(clock()), metadata=metadata)
            except errors.ComityError as error:
                await asyncio.sleep(retry.delay(error, clock()))

    def trace_parent(self) -> str | None:
        """The traceparent of the write that begins now: that of OpenTelemetry's current span unless a function says
        another. Raises ValueError for what is none."""
        value = None if self._trace_parent is None else self._trace_parent()
        if value is None:
            return tracing.current()
        if not TRACE_PARENT.fullmatch(value):
            raise ValueError(f"a traceparent is VERSION-TRACE-PARENT-FLAGS as the W3C has it, not {value!r}")
        return value


def traced(trace_parent: str | None) -> Metadata | None:
    """The metadata that says it."""
    return None if trace_parent is None else (("traceparent", trace_parent),)
