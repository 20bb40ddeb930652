"""A lease for a block of code: `async with state.lease(10.0) as lease`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final

from comity.errors import ComityError

from .lease import Lease

__all__ = ["REVOKE_SECONDS", "Leasing"]

REVOKE_SECONDS: Final = 3.0  # that the end of a block may wait for the server


class Leasing:
    """Grants a lease where a block begins, and revokes it where it ends. Made by `Client.lease`; entered once."""

    def __init__(self, grant: Callable[[], Awaitable[Lease]], timeout: float) -> None:
        self._grant = grant
        self._timeout = min(timeout, REVOKE_SECONDS)
        self._begun = False
        self._task: asyncio.Task[object] | None = None
        self._lease: Lease | None = None
        self._cancelling = 0  # requests that the task had before the block
        self._interrupted = False
        self._left = False
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
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lease is for a block of a task")
        lease = await self.begin()
        self._cancelling = task.cancelling()
        lease.on_lost(self._interrupt)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, lease = self._task, self._lease
        assert task is not None
        assert lease is not None
        self._left = True
        if self._interrupted:
            own = task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError)
            if own or error is None:
                raise lease._error() from error
            return
        await self.end(error)

    def _interrupt(self, lease: Lease) -> None:
        # Soon and not now: it may be the task itself that has just learnt it, and raises LeaseLost. A cancellation that
        # is never delivered in the block would be in whatever the task waits for next.
        asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        if not self._left and self._task is not None:
            self._interrupted = True
            self._task.cancel()

    async def _revoke(self, lease: Lease) -> None:
        """That it fails is of no weight to what the block has done: the lease then ends by itself."""
        with contextlib.suppress(ComityError, RuntimeError):  # a RuntimeError if the client was closed in the block
            await lease.revoke(timeout=self._timeout)
