"""How tasks of asyncio end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

from comity_server.errors import StateError

T = TypeVar("T")

log = structlog.get_logger(__name__)

FIRST_SECONDS: Final = 0.1  # after which a cancellation counts as lost; then twice as long
MOST_SECONDS: Final = 0.4  # where many are lost, as by a follower of a busy log on a Cluster, the next must not be far


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel a task until it ends: redis-py loses a cancellation that comes while it connects. How it ended is not
    looked at; what it still does by then, as to close connections, is given some time."""
    patience = FIRST_SECONDS
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=patience)
        patience = min(patience * 2, MOST_SECONDS)


async def finish(work: Coroutine[Any, Any, T], tasks: "set[asyncio.Task[Any]]") -> T:
    """Wait for what goes on to its end even if whoever waits is cancelled. It is one of the tasks until then."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_log_defect)  # nobody else hears of it
        raise


def _log_defect(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, StateError):
        log.error("what nobody waited for any more failed", exc_info=error)


def tell_of_defects(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An event loop's handler of errors that nobody heard of: what could not be reached after who wanted it had given
    up, as a name server that is long in coming, is none."""
    if isinstance(context.get("exception"), OSError) and context.get("future") is not None:
        log.debug("what nobody waited for any more failed", error=str(context["exception"]))
    else:
        loop.default_exception_handler(context)


def is_cancelled() -> bool:
    """Whether somebody cancels the task that runs: then a CancelledError is not one that came out of what it called."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def unforeseen(error: asyncio.CancelledError) -> Exception:
    """What a cancellation that nobody asked a task for is told as: as itself it would cancel whoever waits."""
    failure = RuntimeError("a task was cancelled")
    failure.__cause__ = error
    return failure
