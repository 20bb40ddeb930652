"""How often something may be done: a rate, and what is left of it."""

from typing import NamedTuple


class Rate(NamedTuple):
    """So much a second in the long run, and so much at once after a pause."""

    per_second: float
    burst: float


class Bucket:
    """What is left of a rate, said by when it will be whole again.

    This is the generic cell rate algorithm (ITU-T I.371, annex A): a token bucket that is one number, and that nothing
    has to fill. `now` is by whatever clock the caller goes by, in seconds.
    """

    __slots__ = ("full_at", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.full_at = float("-inf")

    def wait(self, cost: float, now: float) -> float:
        """How many seconds to wait until so much is there. What is more than the burst has to wait for a full one."""
        per_second, burst = self.rate
        seconds = self.full_at - now - max(burst - cost, 0.0) / per_second
        return seconds if seconds > 1e-9 else 0.0  # less is what floating-point numbers leave

    def take(self, cost: float, now: float) -> None:
        """Take so much, whether it is there or has to come first."""
        self.full_at = max(self.full_at, now) + cost / self.rate.per_second

    def give(self, cost: float) -> None:
        """Put so much back that was taken."""
        self.full_at -= cost / self.rate.per_second

    def change(self, rate: Rate, now: float) -> None:
        """Go on with another rate, and as much owed as there is. Of the burst as much is missing, or all of it."""
        missing = max(self.full_at - now, 0.0) * self.rate.per_second
        missing = min(missing, rate.burst) + max(missing - self.rate.burst, 0.0)
        self.rate = rate
        self.full_at = now + missing / rate.per_second

    def is_full(self, now: float) -> bool:
        """Whether nothing is missing, so that a new one would be the same."""
        return self.full_at <= now
