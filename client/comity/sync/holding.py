"""What a lease is held as, and what is held by one, in synchronous code."""

from typing import Protocol

from comity.leases.guard import Held, LeaseGuard

__all__ = ["Holding"]


class Fenced(Held, Protocol):
    """What has a fencing token."""

    @property
    def fence(self) -> int: ...


class Holding:
    """A lease, or what lives by one: as long as that lives it is held, and `state.put(…, guard=lock)` applies."""

    _async: Fenced

    def __repr__(self) -> str:
        return repr(self._async)

    @property
    def namespace(self) -> str:
        """That of the lease. With `guard` and `check` it makes `state.put(…, guard=lock)` work."""
        return self._async.namespace

    @property
    def fence(self) -> int:
        """The fencing token: greater than that of everyone who held it before."""
        return self._async.fence

    @property
    def guard(self) -> LeaseGuard:
        """Ties a write to being held, also in another process: it raises LeaseLost once the lease has ended."""
        return self._async.guard

    def check(self) -> None:
        """Raise LeaseLost if the lease was lost."""
        self._async.check()
