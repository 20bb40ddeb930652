"""What must end well though its caller is cancelled."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from comity.errors import ComityError, DeadlineExceeded, RateLimited, Unavailable
from comity.leases.lease import Lease
from comity.retry import Backoff

__all__ = ["CLEANUP_SECONDS", "begun", "clean_up", "insist"]

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

    task = _alone(bounded())
    if task is None:
        work.close()
    else:
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

    task = _alone(again())
    if task is not None:
        await asyncio.wait([task], timeout=CLEANUP_SECONDS)


def _alone(work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """A task that goes on though nobody waits for it. None: the event loop has ended, and left the caller behind."""
    try:
        task = asyncio.get_running_loop().create_task(work)
    except RuntimeError:
        work.close()
        return None
    _cleaning.add(task)
    task.add_done_callback(_cleaning.discard)
    return task
