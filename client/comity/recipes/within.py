"""Waits of a caller that may take so many seconds, and say what was waited for when these are up."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from comity.checks import wait_of
from comity.errors import ComityError, DeadlineExceeded, RateLimited, Unavailable

__all__ = ["Wait", "within"]

SHORTEST: Final = 0.001  # seconds that a call is given
MOMENT: Final = 0.1  # seconds before the end of a wait, at which its calls end


class Wait:
    """A wait that goes on. Made by `within`."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline  # by the clock of the event loop; None: it goes on for ever
        self._reason: ComityError | None = None
        self._bounds = False

    def call(self, most: float) -> float:
        """The seconds that a call may take which is made now: a little less than are left, so that what it fails with
        is known when they are up."""
        if self._deadline is None:
            return most
        left = self._deadline - asyncio.get_running_loop().time()
        if left >= most:
            return most
        self._bounds = True
        return max(left - min(MOMENT, left / 10), SHORTEST)

    def notice(self, error: ComityError | None) -> None:
        """Why what is waited for cannot be known at present; None: it can again. For `on_connection` of a watch."""
        self._reason = error

    def cut_short(self, error: BaseException | None) -> bool:
        """Whether a call has failed so for no other reason than that the time was up. It is then the wait's reason."""
        if not self._bounds or not isinstance(error, (Unavailable, DeadlineExceeded, RateLimited)):
            return False
        self._reason = error
        return True

    @property
    def reason(self) -> ComityError | None:
        """Why it was in vain; None: as what was waited for did not happen."""
        return self._reason


@contextlib.asynccontextmanager
async def within(timeout: float | None, missed: str) -> AsyncGenerator[Wait]:
    """A block that may take so many seconds; None: for ever.

    missed: what has not happened then, as `lock 'a' was not had`.

    Raises TimeoutError, which says that; its cause is what kept the server from answering, if anything did. Raises
    TypeError and ValueError for a timeout that is none.
    """
    seconds = wait_of(timeout)
    wait = Wait(None if seconds is None else asyncio.get_running_loop().time() + seconds)
    try:
        async with asyncio.timeout(seconds) as limit:
            yield wait
    except (TimeoutError, Unavailable, DeadlineExceeded, RateLimited) as error:
        if not wait.cut_short(error) and not limit.expired():
            raise
        because = f": {wait.reason.message}" if wait.reason is not None else ""
        raise TimeoutError(f"{missed} within {timeout:g} s{because}") from wait.reason
