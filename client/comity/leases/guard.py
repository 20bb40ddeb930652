"""Which lease a caller means, and which one guards a write.

A `Lease` object says more than a number does: that it is of this namespace, and whether it is known to be lost.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from comity.arguments import shown

__all__ = ["Guard", "Held", "LeaseGuard", "OfLease", "guard_of", "lease_id_of"]


class LeaseGuard(NamedTuple):
    """A lease that must live for a write to apply. Its two numbers can be handed to another process, to write with."""

    lease_id: int
    fence: int = 0  # that it must have; 0: not checked


@runtime_checkable
class Held(Protocol):
    """A `Lease`, of a synchronous client or not, or what holds one."""

    @property
    def namespace(self) -> str: ...

    @property
    def guard(self) -> LeaseGuard: ...

    def check(self) -> None: ...


OfLease = Held | int
Guard = Held | LeaseGuard


def lease_id_of(lease: OfLease, namespace: str, *, held: bool = False) -> int:
    """The number of a lease in a namespace.

    held: it must be alive, as far as is known.

    Raises TypeError for what is none, ValueError for one of another namespace, LeaseLost.
    """
    if isinstance(lease, int) and not isinstance(lease, bool):
        if not 0 < lease < 2**63:
            raise ValueError(f"the id of a lease is a whole number from 1 to 2^63-1, not {shown(lease)}")
        return lease
    if isinstance(lease, Held):
        _same_namespace(lease, namespace)
        if held:
            lease.check()
        return lease.guard.lease_id
    raise TypeError(f"a lease is named by a comity.Lease or its id, not by {type(lease).__name__}")


def guard_of(guard: Guard | None, namespace: str) -> LeaseGuard | None:
    """What guards a write to a namespace.

    Raises TypeError for what guards nothing, ValueError for a lease of another namespace, LeaseLost.
    """
    if guard is None:
        return None
    if isinstance(guard, LeaseGuard):
        return LeaseGuard(lease_id_of(guard.lease_id, namespace), _fence(guard.fence))
    if isinstance(guard, Held):
        _same_namespace(guard, namespace)
        guard.check()
        return guard.guard
    raise TypeError(f"guard must be a comity.Lease or a comity.LeaseGuard, not {type(guard).__name__}")


def _same_namespace(held: Held, namespace: str) -> None:
    if held.namespace != namespace:
        raise ValueError(f"the lease is of namespace {held.namespace!r}, and this is for {namespace!r}")


def _fence(fence: int) -> int:
    if isinstance(fence, bool) or not isinstance(fence, int):
        raise TypeError(f"a fence is a whole number, not of type {type(fence).__name__}")
    if not 0 <= fence < 2**63:
        raise ValueError(f"a fence is a whole number from 0 to 2^63-1, not {shown(fence)}")
    return fence
