"""A server as calls find it: where it is, and why it cannot be reached."""

import asyncio
import os
from typing import TYPE_CHECKING, Final

import grpc

from . import errors
from .addresses import is_here, shown
from .status import error_from_call
from .unreachable import TLS_FAILED, hung_up

if TYPE_CHECKING:
    from .certificates import Certificates

__all__ = ["Peer"]

PATIENCE_SECONDS: Final = 2.0  # that a handshake may take
AGAIN_SECONDS: Final = 1.0  # after one that told nothing, before another
PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")  # as gRPC knows them


class Peer:
    """One target on one event loop.

    Of one that closes connections as soon as they are made a handshake is to tell why. The errors of calls that fail
    meanwhile do not say it yet.
    """

    def __init__(self, target: str, certificates: "Certificates | None") -> None:
        self.address = shown(target)
        self._certificates = certificates
        # What goes by a proxy alone has no way of its own.
        self._is_seen = certificates is None or is_here(target) or not any(map(os.environ.get, PROXIES))
        self._asking: asyncio.Task[None] | None = None
        self._again = 0.0  # when to ask anew, by the clock of the event loop
        self._why: str | None = None

    def error(self, failure: grpc.aio.AioRpcError) -> errors.ComityError:
        """The error for what a call to it raised."""
        error = error_from_call(failure, self.address)
        if not hung_up(error.message):
            self._why = None
            return error
        if self._is_seen and self._asking is None:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._again:
                self._asking = loop.create_task(self._ask())
        if self._why is None:
            return error
        return errors.Unavailable(f"cannot reach {self.address}: {self._why}", reason=TLS_FAILED)

    def end(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        from . import handshake  # few need it

        host, _, port = self.address.rpartition(":")
        why = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                why = await handshake.refusal(host.removeprefix("[").removesuffix("]"), int(port), self._certificates)
        except (OSError, ValueError):  # of which TimeoutError and ssl.SSLError are some
            why = None
        finally:
            self._asking = None
            self._again = asyncio.get_running_loop().time() + AGAIN_SECONDS
            self._why = why
