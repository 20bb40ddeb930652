"""How long leases live, and by which of them a key does: by one that is there, or by one of its own."""

from typing import Final

from google.protobuf.duration_pb2 import Duration

from comity.arguments import shown

from .guard import OfLease, lease_id_of

__all__ = ["MOST_SECONDS", "duration", "living_by", "micros_of", "not_both"]

MOST_SECONDS: Final = 315_576_000_000.0  # that a Duration can say; a server's limit is far below


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


def duration(micros: int) -> Duration | None:
    """The same as a message; None for 0."""
    return Duration(seconds=micros // 10**6, nanos=micros % 10**6 * 1000) if micros else None


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
