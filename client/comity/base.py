"""What all parts of a client have in common: its namespace, its author, and how it makes calls."""

from typing import Protocol, Self, TypeVar

from . import requests
from .calls import Calls, Method, check_timeout
from .request_ids import RequestId, RequestIds
from .v1 import types_pb2

__all__ = ["Base"]


class Write(Protocol):
    """A request that says who writes and why."""

    @property
    def options(self) -> types_pb2.WriteOptions: ...


Request = TypeVar("Request", bound=Write)
Response = TypeVar("Response")


class Base:
    """A client without the calls that it offers: those are added by what derives from it, a service each."""

    def __init__(self, calls: Calls, request_ids: RequestIds, *, namespace: str, author: str, timeout: float) -> None:
        self.namespace = namespace
        self.author = author
        self.timeout = timeout
        self._calls = calls
        self._request_ids = request_ids

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
    ) -> Response:
        """Call with a request id (a new one unless given), the author and the message, so that it is applied once."""
        with self._request_ids.use(request_id) as used:
            request.options.CopyFrom(requests.options(used, self.author, message))
            return await self._calls.write(method, request, self._timeout(timeout))

    def _timeout(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else check_timeout(timeout)
