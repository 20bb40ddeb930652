"""A lease that this process holds, and a lease for a block."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from comity.leases import block, lease

from .holding import Holding
from .thread import run
from .waiting import waiting

__all__ = ["Lease", "Leasing"]


class Lease(Holding):
    """A lease that is kept alive, by the event loop behind all synchronous clients. Made by `Client.lease`,
    `Client.grant_lease` and `Client.keep_alive`.

    It is lost when the server says that it has ended, and also when its ttl has passed since the last renewal that was
    answered was sent: nobody can know then. It never comes back.
    """

    _async: lease.Lease

    def __init__(self, lease: lease.Lease) -> None:
        self._async = lease

    @property
    def id(self) -> int:
        """The revision that granted it."""
        return self._async.id

    @property
    def ttl(self) -> float:
        """Seconds that it lives after each renewal."""
        return self._async.ttl

    @property
    def alive(self) -> bool:
        """False as soon as it is known to be lost, or must be assumed to be; and once it was revoked."""
        return self._async.alive

    @property
    def remaining(self) -> float:
        """Seconds that it lives unless renewed, by the clock of this process: never more than it has at the server."""
        return self._async.remaining

    def on_lost(self, callback: Callable[["Lease"], object]) -> None:
        """Call a function, once, when the lease is lost; soon, if it is lost already. Not when it is revoked or closed.

        It is called with the lease, in another thread, that of the event loop: it must not wait for this client.

        Raises TypeError for what is no plain function.
        """
        lease.check_callback(callback)
        self._async.on_lost(lambda _: callback(self))

    def lost(self, timeout: float | None = None) -> None:
        """Return when the lease is lost, at once if it is already. Never of one that is revoked.

        timeout: seconds, after which TimeoutError is raised; None: it waits on.
        """
        run(self._lost(timeout))

    async def _lost(self, timeout: float | None) -> None:
        async with asyncio.timeout(timeout):
            await self._async.lost()

    revoke = waiting(lease.Lease.revoke)
    close = waiting(lease.Lease.close)


class Leasing:
    """Grants a lease where a block begins, and revokes it where it ends. Made by `Client.lease`; entered once."""

    def __init__(self, leasing: block.Leasing) -> None:
        self._async = leasing

    def __enter__(self) -> Lease:
        return Lease(run(self._async.begin()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run(self._async.end(error))
