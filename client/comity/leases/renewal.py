"""Renewing one lease once. The service knows renewals as streams only; this is one of a single message."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import grpc

from comity import convert
from comity.errors import LeaseNotFound, Unavailable
from comity.stubs import Stubs
from comity.v1 import lease_pb2

__all__ = ["left", "once"]

Renew = Callable[..., Awaitable[float]]


def left(response: lease_pb2.KeepAliveResponse) -> float:
    """Seconds that the lease lives from now on; 0: it has ended."""
    return max(0.0, convert.seconds(response.ttl))


def once(to: Stubs) -> Renew:
    """Renews a lease on a connection, as a unary call would: the seconds that it lives from now on.

    Raises LeaseNotFound if it has ended, Unavailable, and what gRPC raises.
    """

    async def renew(
        request: lease_pb2.KeepAliveRequest, *, timeout: float, metadata: tuple[tuple[str, str], ...] | None
    ) -> float:
        call = to.leases.KeepAlive(timeout=timeout, metadata=metadata)
        try:
            # Where the stream has ended, reading tells with what.
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(request)
                await call.done_writing()
            response = await call.read()
        finally:
            call.cancel()
        if not isinstance(response, lease_pb2.KeepAliveResponse):
            raise Unavailable("the server ended the stream")
        seconds = left(response)
        if not seconds:
            raise LeaseNotFound(
                f"there is no lease {request.lease_id} in namespace {request.namespace}: "
                "it has ended, or there never was one",
                reason="LEASE_NOT_FOUND",
                metadata={"lease_id": str(request.lease_id), "namespace": request.namespace},
            )
        return seconds

    return renew
