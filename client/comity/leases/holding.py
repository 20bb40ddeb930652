"""What is held by a lease, and can stand for it where a write is guarded."""

from .guard import LeaseGuard
from .lease import Lease

__all__ = ["Holding"]


class Holding:
    """A lock, a claim, an agent: as long as its lease lives it is held, and `state.put(…, guard=lock)` applies.

    Where nothing is held, all of it raises what `lease` does.
    """

    @property
    def lease(self) -> Lease:
        """What it lives by."""
        raise NotImplementedError

    @property
    def namespace(self) -> str:
        """That of the lease. With `guard` and `check` it makes `state.put(…, guard=lock)` work."""
        return self.lease.namespace

    @property
    def guard(self) -> LeaseGuard:
        """Ties a write to being held, also in another process: it raises LeaseLost once the lease has ended."""
        return self.lease.guard

    def check(self) -> None:
        """Raise LeaseLost if the lease was lost."""
        self.lease.check()
