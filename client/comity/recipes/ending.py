"""What must end well though its caller is cancelled, and what must end when a lease does."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from comity.errors import ComityError, DeadlineExceeded, LeaseLost, RateLimited, Unavailable
from comity.lease import Lease
from comity.retry import Backoff

__all__ = ["CLEANUP_SECONDS", "EndsWith", "begun", "clean_up", "insist"]

T = TypeVar("T")

CLEANUP_SECONDS: Final = 2.0  # what is not cleaned up by then goes when its lease ends

_cleaning: set[asyncio.Task[None]] = set()


def begun(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task for what must be known the end of, also if whoever asked for it is cancelled: it awaits a shield of it."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody may be there to hear of it
    return task


async def clean_up(work: Coroutine[Any, Any, object]) -> None:
    """Do it, for two seconds at most and whatever comes of it. It goes on if whoever waits for it is cancelled."""

    async def bounded() -> None:
        with contextlib.suppress(ComityError, TimeoutError, RuntimeError):  # the last: the client was closed
            async with asyncio.timeout(CLEANUP_SECONDS):
                await work

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # it has ended, and left the caller behind
        work.close()
        return
    task = loop.create_task(bounded())
    _cleaning.add(task)
    task.add_done_callback(_cleaning.discard)
    await asyncio.shield(task)


async def insist(attempt: Callable[[], Coroutine[Any, Any, object]], lease: Lease) -> None:
    """Do it, and try again for as long as no server can be reached and the lease lives: for what is to end before the
    lease does, by which more lives. Whoever waits for it does so for two seconds at most; it goes on meanwhile, also if
    he is cancelled."""

    async def again() -> None:
        backoff = Backoff()
        while lease.alive:
            try:
                await attempt()
                return
            except (Unavailable, DeadlineExceeded, RateLimited):
                await asyncio.sleep(backoff.delay(math.inf) or 0.0)
            except (ComityError, RuntimeError):  # as in `clean_up`
                return

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # as in `clean_up`
        return
    task = loop.create_task(again())
    _cleaning.add(task)
    task.add_done_callback(_cleaning.discard)
    await asyncio.wait([task], timeout=CLEANUP_SECONDS)


class EndsWith:
    """A block that is cancelled when a lease is lost, as asyncio.timeout does it when the time is up.

    async with EndsWith(lease): ...  # raises LeaseLost

    The block's own error is raised instead, if it ended with one.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancelling = 0
        self._armed = False
        self._cancelled = False  # by this

    async def __aenter__(self) -> Self:
        self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)
        if error is None:
            self._lease.check()

    def begin(self) -> None:
        """From now on the running task is cancelled if the lease is lost."""
        self._task = asyncio.current_task()
        assert self._task is not None
        self._loop = asyncio.get_running_loop()
        self._cancelling = self._task.cancelling()
        self._armed = True
        self._lease.on_lost(self._hear)

    def let_go(self) -> None:
        """From now on the lease may end."""
        self._armed = False

    def hold_on(self) -> None:
        """From now on it may not any more. If it is lost already, the task is cancelled at its next wait."""
        self._armed = True
        if not self._lease.alive:
            self._hear(self._lease)

    def end(self, error: BaseException | None) -> None:
        """The block ends, with this error. Raises LeaseLost if it was cancelled here, and by nobody else."""
        self.let_go()
        if not self._cancelled:
            return
        assert self._task is not None
        self._cancelled = False
        if self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            try:
                self._lease.check()
            except LeaseLost as lost:
                raise lost from error

    def _hear(self, lease: Lease) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and the block with it
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._armed and self._task is not None:
            self._cancelled = True
            self._task.cancel()
