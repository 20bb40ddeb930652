"""What all parts of a client have in common: its namespace, its author, and how it makes calls."""

import asyncio
from typing import Any, Protocol, Self, TypeVar

from . import requests
from .access import Access
from .calls import Calls, check_timeout, traced
from .coalesce import Aside
from .errors import ComityError, LeaseLost
from .leases.guard import Guard, LeaseGuard, guard_of
from .pipelined import Asked
from .request_ids import RequestId, RequestIds, Writer
from .retry import MAX_WRITE_SECONDS, Retry
from .stubs import Method
from .v1 import types_pb2

__all__ = ["Base"]


class Write(Protocol):
    """A request that says who writes and why."""

    @property
    def options(self) -> types_pb2.WriteOptions: ...


Request = TypeVar("Request", bound=Write)
Response = TypeVar("Response")
T = TypeVar("T")


class Base:
    """A client without the calls that it offers: those are added by what derives from it, a service each."""

    def __init__(self, calls: Calls, request_ids: RequestIds, *, namespace: str, author: str, timeout: float) -> None:
        self.namespace = namespace
        self.author = author
        self.timeout = timeout
        self._calls = calls
        self._request_ids = request_ids

    @property
    def address(self) -> str:
        """Where the server is, as it was said to `comity.connect`: for another process to connect to."""
        return self._access.address

    @property
    def _access(self) -> Access:
        """How the server is reached: for another process to connect as this one does. Its repr shows no token."""
        return self._calls.channels.access

    def with_options(
        self, *, namespace: str | None = None, author: str | None = None, timeout: float | None = None
    ) -> Self:
        """A client for another namespace, author or timeout, on the same connections. Close one of them only."""
        return type(self)(
            self._calls,
            self._request_ids,
            namespace=self.namespace if namespace is None else namespace,
            author=self.author if author is None else author,
            timeout=self._timeout(timeout),
        )

    async def _write(
        self,
        method: Method[Request, Response],
        request: Request,
        message: str,
        timeout: float | None,
        request_id: RequestId | None = None,
        guard: Guard | None = None,
    ) -> Response:
        """Call with a request id (a new one unless given), the author, the message and the guard, so that it is applied
        once."""
        held = guard_of(guard, self.namespace)
        with self._request_ids.use(request_id) as used:
            request.options.CopyFrom(requests.options(used, self.author, message, held))
            try:
                return await self._calls.write(method, request, self._timeout(timeout))
            except LeaseLost:
                self._lost(held)
                raise

    async def _ask(
        self, asked: Asked[T], timeout: float | None, message: str = "", request_id: RequestId | None = None
    ) -> T:
        """Ask for one operation along with those that are in flight, or else by a call; again while that may help."""
        if request_id is not None:
            return await asked.alone(
                lambda method, request, options=None: self._write(
                    method, request, message, timeout, request_id, asked.guard
                )
            )
        seconds = self._timeout(timeout)
        trace_parent = None
        if asked.writes:
            seconds = min(seconds, MAX_WRITE_SECONDS)
            trace_parent = self._calls.trace_parent()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        writer = self._request_ids.writer(loop)
        id = writer.begin() if asked.writes else writer.skip()
        retry: Retry | None = None
        try:
            while True:
                try:
                    lane = self._calls.channels.connection().lanes.lane(self.namespace, self.author, writer)
                    if lane is not None and asked.fits:
                        try:
                            return asked.answer(await lane.ask(asked, id, deadline, message, trace_parent))
                        except Aside:
                            pass
                    return await self._ask_alone(asked, writer, id, deadline - loop.time(), message, trace_parent)
                except ComityError as error:
                    if isinstance(error, LeaseLost):
                        self._lost(asked.guard)
                    if retry is None:
                        retry = Retry(deadline)
                    await asyncio.sleep(retry.delay(error, loop.time()))
        finally:
            if asked.writes:
                writer.end(id)

    async def _ask_alone(
        self, asked: Asked[T], writer: Writer, id: int, seconds: float, message: str, trace_parent: str | None
    ) -> T:
        def send(method: Method[Any, Any], request: Any, options: types_pb2.WriteOptions | None = None) -> Any:
            if options is not None:
                options.CopyFrom(requests.options(writer.request_id(id), self.author, message, asked.guard))
            return self._calls.attempt(method, request, max(0.0, seconds), metadata=traced(trace_parent))

        return await asked.alone(send)

    def _lost(self, guard: LeaseGuard | None) -> None:
        """The server has refused a write since its guard has ended: whoever holds that lease is told."""
        if guard is not None and guard.fence in (0, guard.lease_id):
            self._calls.keepers.ended(self.namespace, guard.lease_id)

    def _timeout(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else check_timeout(timeout)
