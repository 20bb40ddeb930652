"""A block that can be made to fail from outside of it, as asyncio.timeout does when the time is up."""

import asyncio
from typing import Any

__all__ = ["Block"]


class Block:
    """The body of an `async with` of the running task. All is called in its event loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._cancelled = False
        self.failure: BaseException | None = None

    def begin(self) -> None:
        """The block begins, in the running task."""
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()

    def fail(self, error: BaseException) -> None:
        """Have the block cancelled, soon, and this raised at its end. The first counts."""
        if self.failure is None:
            self.failure = error
            # Not at once: it may be the block itself that has just learnt it, and that ends without a cancellation.
            asyncio.get_running_loop().call_soon(self._cancel)

    def end(self) -> None:
        """The block has ended: it is cancelled no more."""
        task, self._task = self._task, None
        if self._cancelled and task is not None:
            task.uncancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def check(self, error: BaseException | None) -> None:
        """Raise why the block failed, unless it ended with an error of its own."""
        if self.failure is not None and (error is None or self._is_ours(error)):
            raise self.failure from self.failure.__cause__

    def _is_ours(self, error: BaseException) -> bool:
        task = asyncio.current_task()
        return (
            self._cancelled
            and isinstance(error, asyncio.CancelledError)
            and task is not None
            and task.cancelling() <= self._cancelling
        )
