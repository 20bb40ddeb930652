"""Runs a coroutine that is cancelled at one of the places where it waits."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any


class CancelledAt:
    """Awaits a coroutine, and cancels the task at its nth wait, counted from 0."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], wait: int) -> None:
        self._coroutine = coroutine
        self._wait = wait
        self.reached = False

    def __await__(self) -> Generator[Any, None, object]:
        steps = self._coroutine.__await__()
        step: Callable[[], Any] = partial(steps.send, None)
        for wait in itertools.count():
            try:
                waited_for = step()
            except StopIteration as end:
                return end.value
            if wait == self._wait:
                self.reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield waited_for
                step = partial(steps.send, None)
            except BaseException as error:  # noqa: BLE001 - passed on
                step = partial(steps.throw, error)
        return None


async def cancelled_at(coroutine: Coroutine[Any, Any, object], wait: int) -> bool:
    """Run it in a task that is cancelled at its nth wait. Whether it got so far, and did not end all the same."""
    cancelled = CancelledAt(coroutine, wait)

    async def run() -> None:
        await cancelled

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return True
    task.result()
    return False
