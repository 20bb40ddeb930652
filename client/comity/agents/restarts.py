"""What a supervisor does about a child that ended: Erlang/OTP's restart strategies, restart types and restart limit."""

import enum
import math
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

from .errors import RestartLimitExceeded

__all__ = ["Restart", "RestartLimit", "Strategy", "affected", "cannot_start", "too_many"]

T = TypeVar("T")


class Strategy(enum.StrEnum):
    """Who is restarted with a child that ended and is to be restarted."""

    ONE_FOR_ONE = "one_for_one"  # nobody else
    ONE_FOR_ALL = "one_for_all"  # all others: they are stopped, and then all are started
    REST_FOR_ONE = "rest_for_one"  # those that were spawned after it


class Restart(enum.StrEnum):
    """Whether a child that ended by itself is restarted."""

    PERMANENT = "permanent"  # always, also if its function returned
    TRANSIENT = "transient"  # only if it failed: by an exception, or since it was killed, or lost its lease
    TEMPORARY = "temporary"  # never

    def wants(self, *, failed: bool) -> bool:
        """Whether a child that ended like this is restarted."""
        return self is Restart.PERMANENT or (self is Restart.TRANSIENT and failed)


class RestartLimit:
    """At most so many restarts within so many seconds.

    together: the ends of several children within so many seconds are taken to have one cause, and count once. That of
        a child that has ended in that time already counts anew.
    """

    def __init__(self, most: int, within: float, *, together: float = 0.0) -> None:
        self.most = most
        self.within = within
        self.together = together
        self._times: deque[float] = deque()
        self._last: set[str] = set()  # whose ends the last of the times stands for

    def spend(self, now: float, child: str) -> bool:
        """Count the restart of a child that has ended. False: it is one too many. `now` never goes back."""
        while self._times and self._times[0] <= now - self.within:
            self._times.popleft()
        if self._times and now < self._times[-1] + self.together and child not in self._last:
            self._last.add(child)
        else:
            self._times.append(now)
            self._last = {child}
        return len(self._times) <= self.most

    def reset(self) -> None:
        """Forget the restarts up to now."""
        self._times.clear()


def too_many(child: str, why: str, cause: BaseException | None, limit: RestartLimit) -> RestartLimitExceeded:
    """The error of a child that ended, as is said here, once more than it may."""
    within = f" within {limit.within:g} s" if limit.within < math.inf else ", and nothing came of it,"
    error = RestartLimitExceeded(
        f"{child} has ended ({why}), and there were {limit.most} restarts{within} before",
        reason="RESTART_LIMIT_EXCEEDED",
        metadata={"child": child},
    )
    error.__cause__ = cause
    return error


def cannot_start(child: str, why: str) -> RestartLimitExceeded:
    """The error of a child of which not even the function was reached."""
    return RestartLimitExceeded(
        f"{child} cannot be started, nor restarted: it {why}", reason="CANNOT_START", metadata={"child": child}
    )


def affected(strategy: Strategy, children: Sequence[T], ended: T) -> Sequence[T]:
    """Which of the children, in the order in which they were spawned, are started anew with one that ended: it too."""
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return [ended]
        case Strategy.ONE_FOR_ALL:
            return children
        case Strategy.REST_FOR_ONE:
            return children[children.index(ended) :]
