"""When to try again, and how long to wait before."""

import random

from . import errors
from .status import is_transient

__all__ = ["MAX_WRITE_SECONDS", "Backoff", "Retry"]

# Half of the time for which a server remembers the request ids of a silent client.
MAX_WRITE_SECONDS = 300.0


class Backoff:
    """Waiting times with full jitter: each is from 0 to a bound that doubles from `first` to `most` seconds."""

    def __init__(self, first: float = 0.02, most: float = 1.0) -> None:
        self._first = first
        self._most = most
        self.reset()

    def reset(self) -> None:
        """Begin again with the first bound, after a success."""
        self._bound = self._first

    def delay(self, remaining: float, at_least: float | None = None) -> float | None:
        """Seconds to wait, so that some of the remaining ones are left for the next try; None if that cannot be.

        The jitter comes on top of what a server asks for, so that its callers do not return at once.
        """
        at_least = at_least or 0.0
        spare = remaining - at_least
        if spare < self._first:
            return None
        bound = min(self._bound, spare)
        self._bound = min(self._bound * 2, self._most)
        return at_least + random.uniform(0, bound)


class Retry:
    """The tries of one call, until a deadline. Times are those of one monotonic clock, in seconds."""

    def __init__(self, deadline: float, *, most: float = 1.0) -> None:
        self._deadline = deadline
        self._backoff = Backoff(most=most)
        self._last: errors.ComityError | None = None

    def remaining(self, now: float) -> float:
        """Seconds that the next try has."""
        return max(0.0, self._deadline - now)

    def delay(self, error: errors.ComityError, now: float) -> float:
        """Seconds to wait before the next try after this error; raises if there is to be none.

        Raised is the error itself, or where the time was up in the midst of a later try, what failed the try before:
        it says more.
        """
        last, self._last = self._last, error
        if isinstance(error, errors.DeadlineExceeded) and last is not None:
            raise last  # with the cause that it has
        if not is_transient(error):
            raise error
        delay = self._backoff.delay(self._deadline - now, error.retry_delay)
        if delay is None:
            raise error
        return delay
