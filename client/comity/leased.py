"""What a caller says of leases: which one, how long it lives, and which one guards a write.

A `Lease` object says more than a number does: that it is of this namespace, and whether it is known to be lost.
"""

from typing import Final, Protocol, runtime_checkable

from google.protobuf.duration_pb2 import Duration

from .arguments import shown
from .lease import LeaseGuard

__all__ = [
    "MOST_SECONDS",
    "Guard",
    "Held",
    "OfLease",
    "duration",
    "guard_of",
    "lease_id_of",
    "living_by",
    "micros_of",
    "not_both",
]

MOST_SECONDS: Final = 315_576_000_000.0  # that a Duration can say; a server's limit is far below


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


def micros_of(ttl: float) -> int:
    """A ttl in whole microseconds. Raises TypeError for what is no number, ValueError unless it is above 0 and a
    server can be told of it."""
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise TypeError(f"ttl must be a number of seconds above 0, not {type(ttl).__name__}")
    if not ttl > 0:  # nor is NaN
        raise ValueError(f"a ttl is a number of seconds above 0, not {shown(ttl)}")
    if ttl > MOST_SECONDS:
        raise ValueError(f"a ttl is at most {MOST_SECONDS:.0f} s, not {shown(ttl)}")
    return max(1, round(ttl * 1e6))


def living_by(lease: OfLease | None, ttl: float | None, namespace: str) -> tuple[int, int]:
    """What a key is to live by: the id of a lease, and the ttl in µs of one of its own; 0 says nothing.

    Raises TypeError for both of them, and what `lease_id_of` and `micros_of` raise.
    """
    not_both(lease, ttl)
    return (
        0 if lease is None else lease_id_of(lease, namespace, held=True),
        0 if ttl is None else micros_of(ttl),
    )


def not_both(lease: OfLease | None, ttl: float | None) -> None:
    """Raise TypeError if both are given."""
    if lease is not None and ttl is not None:
        raise TypeError("give either a lease or a ttl, which is a lease of the key's own")


def duration(micros: int) -> Duration | None:
    """The same as a message; None for 0."""
    return Duration(seconds=micros // 10**6, nanos=micros % 10**6 * 1000) if micros else None


def _same_namespace(held: Held, namespace: str) -> None:
    if held.namespace != namespace:
        raise ValueError(f"the lease is of namespace {held.namespace!r}, and this is for {namespace!r}")


def _fence(fence: int) -> int:
    if isinstance(fence, bool) or not isinstance(fence, int):
        raise TypeError(f"a fence is a whole number, not of type {type(fence).__name__}")
    if not 0 <= fence < 2**63:
        raise ValueError(f"a fence is a whole number from 0 to 2^63-1, not {shown(fence)}")
    return fence
