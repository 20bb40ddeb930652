"""Blocks of code that end with a lease: `async with state.lease(10.0) as lease`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Final

from comity.errors import ComityError

from .lease import Lease

__all__ = ["REVOKE_SECONDS", "Block", "Leasing", "ends_with"]

REVOKE_SECONDS: Final = 3.0  # that the end of a block may wait for the server


class Block:
    """A block of a task, which is cancelled from outside of it when its lease is lost, or when it is made to fail
    otherwise; as asyncio.timeout does it when the time is up. Used once.

    block.begin(lease)
    try:
        ...
    except BaseException as error:
        block.end()
        block.check(error)  # raises LeaseLost instead of what the block was cancelled with
        raise

    failure: why it is to end. The block's own error is raised instead, if it ended with one.
    """

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self._lease: Lease | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancelling = 0  # requests that the task had before the block
        self._armed = False
        self._cancelled = False  # by this
        self._alone = False  # by this, and by nobody else

    def begin(self, lease: Lease) -> None:
        """The block begins, in the running task. From now on that is cancelled if the lease is lost."""
        self._task = asyncio.current_task()
        assert self._task is not None
        self._loop = asyncio.get_running_loop()
        self._cancelling = self._task.cancelling()
        self._armed = True
        self._lease = lease
        lease.on_lost(self._lose)

    def fail(self, error: BaseException) -> None:
        """Have the block cancelled, soon, and this raised at its end. The first counts. From any event loop."""
        if self.failure is None:
            self.failure = error
        assert self._loop is not None
        # Not at once: it may be the block itself that has just learnt it, and ends without a cancellation, which would
        # then be delivered in whatever the task waits for next.
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and the block with it
            self._loop.call_soon_threadsafe(self._cancel)

    def let_go(self) -> None:
        """From now on the lease may end."""
        self._armed = False

    def hold_on(self) -> None:
        """From now on it may not any more. If it is lost already, the task is cancelled at its next wait."""
        assert self._lease is not None
        self._armed = True
        if not self._lease.alive:
            self._lose(self._lease)

    def end(self) -> None:
        """The block has ended: it is cancelled no more. Called again it does nothing."""
        task, self._task = self._task, None
        if self._cancelled and task is not None:
            self._alone = task.uncancel() <= self._cancelling

    def check(self, error: BaseException | None) -> None:
        """Raise why the block failed, unless it ended with an error of its own, or was cancelled by others too."""
        if self.failure is not None and (error is None or (self._alone and isinstance(error, asyncio.CancelledError))):
            raise self.failure from self.failure.__cause__ or error

    def _lose(self, lease: Lease) -> None:
        self.fail(lease._error())

    def _cancel(self) -> None:
        if self._armed and self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()


@contextlib.contextmanager
def ends_with(lease: Lease) -> Iterator[None]:
    """A block that is cancelled if a lease is lost, and raises LeaseLost then: `with ends_with(lease)`.

    The block's own error is raised instead, if it ended with one. The lease is not revoked at its end.
    """
    block = Block()
    block.begin(lease)
    try:
        yield
    except BaseException as error:
        block.end()
        block.check(error)
        raise
    block.end()
    block.check(None)
    lease.check()


class Leasing:
    """Grants a lease where a block begins, and revokes it where it ends. Made by `Client.lease`; entered once."""

    def __init__(self, grant: Callable[[], Awaitable[Lease]], timeout: float) -> None:
        self._grant = grant
        self._timeout = min(timeout, REVOKE_SECONDS)
        self._begun = False
        self._lease: Lease | None = None
        self._block = Block()
        self._revoking: asyncio.Task[None] | None = None

    async def begin(self) -> Lease:
        """Grant the lease. Raises RuntimeError if it was called before."""
        if self._begun:
            raise RuntimeError("a lease is for one block: call `lease` again for another")
        self._begun = True
        self._lease = lease = await self._grant()
        return lease

    async def end(self, error: BaseException | None) -> None:
        """Revoke the lease after the block, which has raised this. Raises LeaseLost if it was lost, and that is all."""
        lease = self._lease
        assert lease is not None
        if error is None and lease._is_lost():
            raise lease._error()
        self._revoking = asyncio.create_task(self._revoke(lease))
        await asyncio.shield(self._revoking)

    async def __aenter__(self) -> Lease:
        if asyncio.current_task() is None:
            raise RuntimeError("a lease is for a block of a task")
        lease = await self.begin()
        self._block.begin(lease)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._block.end()
        self._block.check(error)
        if self._block.failure is None:
            await self.end(error)

    async def _revoke(self, lease: Lease) -> None:
        """That it fails is of no weight to what the block has done: the lease then ends by itself."""
        with contextlib.suppress(ComityError, RuntimeError):  # a RuntimeError if the client was closed in the block
            await lease.revoke(timeout=self._timeout)
