"""When to try again, and how long to wait before."""

import random
from collections.abc import Mapping

from . import errors
from .status import is_retriable, is_transient
from .unreachable import TLS_FAILED, UNREACHABLE

__all__ = ["MAX_WRITE_SECONDS", "REFUSED", "Backoff", "Misfit", "Retry"]

# Half of the time for which a server remembers the request ids of a silent client.
MAX_WRITE_SECONDS = 300.0
# Reasons of a server that was not reached, or that did not take the request since it ends.
REFUSED = frozenset({UNREACHABLE, TLS_FAILED, "DRAINING"})
# And of one that refused it before it was begun.
NOT_BEGUN = REFUSED | {"OVERLOADED", "REQUEST_TIMEOUT", "DEADLINE_PASSED"}
OPEN_END = "the time is up, and of one try no answer came"

NOBODY = "connection refused"  # how the message of such an error ends
RECENT_SECONDS = 5.0  # in which each address of a host has had a try or more
ROTATION_SECONDS = 2.0  # for which certificates that do not fit may be those of two sides that are about to be replaced


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


class Misfit:
    """For how long every try has failed since no connection by TLS can be made, which will hardly pass by itself.

    Of a host with several addresses, as `localhost` has with IPv6, gRPC tells only why one of them fails, now of this
    and now of that: where nobody listens at the one, what the other says is more.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._last: tuple[errors.ComityError, float] | None = None

    def known(self, error: errors.ComityError, now: float) -> errors.ComityError:
        """What says more than this error, if it is that nobody listens: what else there was a moment ago."""
        if not _nobody_listens(error) or self._last is None:
            return error
        last, at = self._last
        return last if now - at < RECENT_SECONDS else error

    def lasts(self, error: errors.ComityError, now: float) -> bool:
        """Whether it has, with this error, for so long that there is no use in another try."""
        if error.reason not in (TLS_FAILED, UNREACHABLE):
            self._last = None
        elif not _nobody_listens(error):
            self._last = error, now
        if error.reason != TLS_FAILED:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= ROTATION_SECONDS


def _nobody_listens(error: errors.ComityError) -> bool:
    return error.reason == UNREACHABLE and error.message.endswith(NOBODY)


class Retry:
    """The tries of one call, until a deadline. Times are those of one monotonic clock, in seconds."""

    def __init__(self, deadline: float, *, most: float = 1.0) -> None:
        self._deadline = deadline
        self._backoff = Backoff(most=most)
        self._misfit = Misfit()
        self._last: errors.ComityError | None = None
        self._is_open = False  # whether one of them may have been applied

    def remaining(self, now: float) -> float:
        """Seconds that the next try has."""
        return max(0.0, self._deadline - now)

    def delay(self, error: errors.ComityError, now: float) -> float:
        """Seconds to wait before the next try after this error; raises if there is to be none.

        What is raised is true of all tries. A write of which one try had no answer may have been applied, whatever
        became of the others: that is DeadlineExceeded, whose cause is what failed another try. Where the time was up in
        the midst of a later try, Unavailable says as much, and more: it is raised as it was.
        """
        last, self._last = self._last, error
        was_open, self._is_open = self._is_open, self._is_open or _is_open(error)
        if isinstance(error, errors.DeadlineExceeded):
            if last is None:
                raise error
            if isinstance(last, errors.Unavailable) and _is_open(error):
                raise self._misfit.known(last, now)  # with the cause that it has
            if was_open and not _is_open(error):
                raise _out_of_time(OPEN_END, error)
            raise _out_of_time(error.message, last, error.reason, error.metadata)
        if not is_retriable(error) or self._misfit.lasts(error, now):
            raise error
        delay = self._backoff.delay(self._deadline - now, error.retry_delay)
        if delay is None:
            if was_open and isinstance(error, errors.RateLimited):
                raise _out_of_time(OPEN_END, error)
            raise self._misfit.known(error, now)
        return delay


def _is_open(error: errors.ComityError) -> bool:
    """Whether the try may have been applied, for all that is known."""
    return (isinstance(error, errors.DeadlineExceeded) or is_transient(error)) and error.reason not in NOT_BEGUN


def _out_of_time(
    message: str, other: errors.ComityError, reason: str = "", metadata: Mapping[str, str] | None = None
) -> errors.DeadlineExceeded:
    """The error of a call whose time is up, with what became of another try."""
    made = errors.DeadlineExceeded(f"{message}; another try: {other.message}", reason=reason, metadata=metadata)
    made.__cause__ = other
    return made
