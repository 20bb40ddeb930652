"""A lease that this process holds, and a lease for a block."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from comity.leases import block, lease
from comity.leases.guard import LeaseGuard

from .thread import run
from .waiting import waiting

__all__ = ["Lease", "Leasing"]


class Lease:
    """A lease that is kept alive, by the event loop behind all synchronous clients. Made by `Client.lease`,
    `Client.grant_lease` and `Client.keep_alive`.

    It is lost when the server says that it has ended, and also when its ttl has passed since the last renewal that was
    answered was sent: nobody can know then. It never comes back.
    """

    def __init__(self, lease: lease.Lease) -> None:
        self._async = lease

    def __repr__(self) -> str:
        return repr(self._async)

    @property
    def namespace(self) -> str:
        """The namespace that it is of."""
        return self._async.namespace

    @property
    def id(self) -> int:
        """The revision that granted it."""
        return self._async.id

    @property
    def ttl(self) -> float:
        """Seconds that it lives after each renewal."""
        return self._async.ttl

    @property
    def fence(self) -> int:
        """Its fencing token, which is its id: greater than that of every lease of the namespace before it."""
        return self._async.fence

    @property
    def guard(self) -> LeaseGuard:
        """What ties a write to it, as the lease itself does; for another process."""
        return self._async.guard

    @property
    def alive(self) -> bool:
        """False as soon as it is known to be lost, or must be assumed to be; and once it was revoked."""
        return self._async.alive

    @property
    def remaining(self) -> float:
        """Seconds that it lives unless renewed, by the clock of this process: never more than it has at the server."""
        return self._async.remaining

    def check(self) -> None:
        """Raise LeaseLost unless it is alive."""
        self._async.check()

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
